"""Spec files -> compiled packages: render what is not fresh, then let ninja compile what is not."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from fusegen import freshness
from fusegen.build_lock import build_lock
from fusegen.compile_errors import compile_error
from fusegen.compilers import architectures, find_compilers, gpu_capabilities
from fusegen.errors import UserError
from fusegen.ninja_file import ninja_text, packages_under

Backend = Literal["auto", "cpu", "cuda"]
_GIB = 2**30


@dataclass(frozen=True)
class BuildResult:
    """What became of one package.

    Args:
        name: the package.
        backends: what it was built for.
        rendered: whether its sources were written anew.
        compiled: the files that were compiled or linked.
        seconds: how long its compilers ran, added up.
    """

    name: str
    backends: tuple[str, ...]
    rendered: bool
    compiled: tuple[str, ...]
    seconds: float


class Progress(Protocol):
    """Where a build says how far it is."""

    def say(self, text: str) -> None:
        """Show a line."""

    def step(self, done: int, total: int, what: str) -> None:
        """Show that `done` of `total` steps are finished, the last of them being `what`."""


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def step(self, done: int, total: int, what: str) -> None:
        """Show nothing."""


def expand(specs: Sequence[Path]) -> list[Path]:
    """Return the spec files that files and folders of specs name.

    Raises:
        UserError: where one does not exist, a folder holds none, or two have the same name.
    """
    found: list[Path] = []
    for path in specs:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml"))
            if not inside:
                raise UserError(f"{path}: there is no spec (*.yaml) in this folder")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such spec{_similar(path)}")
    by_name: dict[str, Path] = {}
    for path in found:
        other = by_name.setdefault(path.stem, path)
        if other.resolve() != path.resolve():
            raise UserError(
                f"{path} and {other} would both be the package {path.stem!r}; rename one"
            )
    return list(by_name.values())


def _similar(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path()
    close = difflib.get_close_matches(path.name, [p.name for p in folder.iterdir()], n=1)
    return f"; did you mean {folder / close[0]}?" if close else ""


def build(
    specs: Sequence[Path],
    *,
    out: Path,
    backend: Backend = "auto",
    arch: Sequence[str] = (),
    jobs: int | None = None,
    verbose: bool = False,
    progress: Progress | None = None,
) -> list[BuildResult]:
    """Render and compile packages.

    Everything is rendered before anything is written, so an error in one spec changes nothing.

    Args:
        specs: spec files, or folders of them.
        out: the folder of the packages.
        backend: "cpu"; "cuda" for CPU and CUDA, with or without a GPU; "auto" for CUDA too where
            nvcc and a GPU are.
        arch: GPU architectures; those of the present GPUs by default.
        jobs: compilers at once; else MAX_JOBS, else what cores and memory allow.
        verbose: show the commands.
        progress: where to say how far it is.

    Raises:
        UserError: where a spec is wrong or a compiler is missing.
        CompileError: where a compiler refuses a source.
    """
    progress = progress or Silent()
    files = expand(specs)
    compilers = find_compilers()
    if backend == "cuda" and compilers.nvcc is None:
        raise UserError(
            "--backend cuda: nvcc was not found (looked in CUDA_HOME, CUDA_PATH, PATH and /usr/local/cuda); "
            "install the CUDA toolkit"
        )
    cuda = backend == "cuda" or (
        backend == "auto" and compilers.nvcc is not None and bool(gpu_capabilities())
    )
    codes = architectures(arch, compilers.nvcc) if cuda and compilers.nvcc else ()
    if arch and not cuda:
        progress.say(f"--arch {','.join(arch)} is not used: this builds for the CPU alone")
    work = out / ".build"
    with build_lock(work, progress.say) as lock:
        rendered = _render(files, out, work, progress)
        names = [path.stem for path in files]
        manifest = ninja_text(packages_under(out), compilers, codes)
        # CPU-only and CUDA builds have a file each: changing between them rebuilds nothing.
        ninja_file = work / ("build.cuda.ninja" if cuda else "build.ninja")
        freshness.write_if_different(ninja_file, manifest)
        backends = ("cpu", "cuda") if cuda else ("cpu",)
        targets = [f"{name}/_{device}.so" for name in names for device in backends]
        ran = _run_ninja(out, ninja_file, targets, jobs, verbose, progress, lock)
    return [
        BuildResult(
            name,
            backends,
            name in rendered,
            tuple(file for file, _ in ran.get(name, ())),
            sum(seconds for _, seconds in ran.get(name, ())),
        )
        for name in names
    ]


def _render(files: Sequence[Path], out: Path, work: Path, progress: Progress) -> set[str]:
    """Write the sources of the packages that are not fresh; return their names."""
    stamps = {path: work / path.stem / "stamp.json" for path in files}
    stale = [p for p in files if not freshness.is_fresh(p, out / p.stem, stamps[p])]
    if not stale:
        return set()
    from fusegen.pipeline import (
        render_package,
    )  # imports sympy: only where something is to be derived

    packages = []
    for count, path in enumerate(stale, 1):
        packages.append(render_package(path))
        progress.step(count, len(stale), f"derived {path.stem}")
    for path, package in zip(stale, packages, strict=True):
        for file, text in package.files.items():
            freshness.write_if_different(out / path.stem / file, text)
        freshness.write_stamp(path, package.files, stamps[path], package.sources)
    return {path.stem for path in stale}


def check(specs: Sequence[Path], *, out: Path) -> list[str]:
    """Render in memory and return a diff for each file that differs from what lies in `out`."""
    from fusegen.pipeline import render_package

    differences = []
    for path in expand(specs):
        package = render_package(path)
        for file, text in package.files.items():
            place = out / package.name / file
            present = place.read_text() if place.exists() else ""
            if present != text:
                diff = difflib.unified_diff(
                    present.splitlines(),
                    text.splitlines(),
                    str(place),
                    "rendered",
                    lineterm="",
                    n=1,
                )
                differences.append("\n".join(diff))
    return differences


def clean(out: Path) -> list[Path]:
    """Remove what was compiled under `out`; return what was removed."""
    removed = [*out.glob("*/_cpu.so"), *out.glob("*/_cuda.so")]
    for path in removed:
        path.unlink()
    if (out / ".build").exists():
        shutil.rmtree(out / ".build")
        removed.append(out / ".build")
    return removed


def _jobs(requested: int | None) -> int:
    if requested is not None:
        if requested < 1:
            raise UserError(f"--jobs {requested}: expected at least 1")
        return requested
    if limit := os.environ.get("MAX_JOBS"):
        if not (limit.isascii() and limit.isdigit() and int(limit) >= 1):
            raise UserError(f"MAX_JOBS={limit}: expected a whole number of at least 1")
        return int(limit)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // (2 * _GIB)))  # a compiler takes up to 2 GiB


def _ninja() -> str:
    beside = Path(sys.executable).parent / "ninja"
    found = str(beside) if beside.exists() else shutil.which("ninja")
    if found is None:
        raise UserError("ninja is not installed; `pip install ninja`")
    return found


def _run_ninja(
    out: Path,
    manifest: Path,
    targets: Sequence[str],
    jobs: int | None,
    verbose: bool,
    progress: Progress,
    lock: int,
) -> dict[str, list[tuple[str, float]]]:
    """Run ninja; return what each package's compilers made, with seconds."""
    command = [
        _ninja(),
        "-C",
        str(out),
        "-f",
        str(manifest.relative_to(out)),
        "-j",
        str(_jobs(jobs)),
    ]
    command += [*(["-v"] if verbose else []), *targets]
    environment = {**os.environ, "NINJA_STATUS": "[%f/%t] "}
    log = out / ".build" / ".ninja_log"
    known = _log_lines(log)
    output: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        pass_fds=(lock,),  # where this process is killed, ninja's compilers still hold the lock
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            status = re.match(r"\[(\d+)/(\d+)\] (.*)", line)
            if status:
                progress.step(int(status[1]), int(status[2]), status[3])
            elif verbose:
                progress.say(line.rstrip())  # what a compiler warns of
    if process.returncode:
        raise compile_error("".join(output), out)
    made: dict[str, list[tuple[str, float]]] = {}
    for name, file, seconds in _made(_log_lines(log) - known):
        made.setdefault(name, []).append((file, seconds))
    return made


def _log_lines(log: Path) -> set[str]:
    """Return the lines of ninja's log; each holds the time of what was made, so none comes twice."""
    return set(log.read_text().splitlines()[1:]) if log.exists() else set()


def _made(lines: set[str]) -> Iterator[tuple[str, str, float]]:
    """Yield package, file and seconds of each output in lines of ninja's log."""
    for line in sorted(lines):
        begin, end, _, output, *_ = line.split("\t")
        yield Path(output).parent.name, Path(output).name, (int(end) - int(begin)) / 1000
