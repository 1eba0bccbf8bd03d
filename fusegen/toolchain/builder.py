"""Spec files -> compiled packages: render what is not fresh, then let ninja compile what is not."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from fusegen.base.dtypes import DTYPES, dtype_named
from fusegen.base.errors import UserError, nearest
from fusegen.base.files import cannot_write, write_if_different
from fusegen.base.stamp import Stamp
from fusegen.toolchain import ccache, freshness, kept_object
from fusegen.toolchain.compile_errors import DamagedObjectError
from fusegen.toolchain.compilers import architectures, find_compilers, gpu_capabilities, needed_nvcc
from fusegen.toolchain.jobs import jobs as jobs_of
from fusegen.toolchain.lock import build_lock
from fusegen.toolchain.ninja_file import dtypes_of, ninja_text, packages_under
from fusegen.toolchain.ninja_run import Ninja, Progress, Silent
from fusegen.toolchain.render_pool import render_all
from fusegen.toolchain.results import BuildResult
from fusegen.toolchain.spec_files import expand
from fusegen.toolchain.stamping import fits, write_stamp

__all__ = ["BuildResult", "Progress", "Silent", "build", "check", "clean", "expand", "is_rendered"]

Backend = Literal["auto", "cpu", "cuda"]


def build(
    specs: Sequence[Path],
    *,
    out: Path,
    backend: Backend = "auto",
    arch: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    jobs: int | None = None,
    workers: bool = True,
    verbose: bool = False,
    progress: Progress | None = None,
) -> list[BuildResult]:
    """Render and compile packages.

    Everything is rendered before anything is written, so an error in one spec changes nothing.

    Args:
        specs: spec files, their names, or folders of them; those of specs/ where there are none.
        out: the folder of the packages.
        backend: "cpu"; "cuda" for CPU and CUDA, with or without a GPU; "auto" for CUDA too where
            nvcc and a GPU are.
        arch: GPU architectures; those of the present GPUs by default.
        dtypes: the dtypes to compile for, of those that a spec has; all of them by default.
        jobs: compilers at once, and processes that render; else MAX_JOBS, else what cores and memory allow.
        workers: whether processes of their own derive specs; otherwise this one derives them all.
        verbose: show the commands.
        progress: where to say how far it is.

    Raises:
        UserError: where a spec is wrong or a compiler is missing.
        CompileError: where a compiler refuses a source.
    """
    progress = progress or Silent()
    if backend not in get_args(Backend):
        raise UserError(f"--backend {backend}: not known{nearest(backend, get_args(Backend))}")
    files = expand(specs)
    compilers = find_compilers()
    if backend == "cuda":
        needed_nvcc(compilers, "--backend cuda")
    cuda = backend == "cuda" or (
        backend == "auto" and compilers.nvcc is not None and bool(gpu_capabilities())
    )
    codes = architectures(arch, compilers.nvcc) if cuda and compilers.nvcc else ()
    if arch and not cuda:
        progress.say(f"--arch {','.join(arch)} is not used: this builds for the CPU alone")
    dtypes = [dtype_named(dtype) for dtype in dtypes]
    chosen = [dtype for dtype in DTYPES if not dtypes or dtype in dtypes]
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise UserError(f"--dtypes {dtype}: no dtype of a kernel{nearest(dtype, DTYPES)}")
    work = out / ".build"
    with build_lock(work, progress.say) as lock:
        rendered = _render(files, out, jobs if workers else 1, progress)
        names = [path.stem for path in files]
        _check_dtypes(out, names, dtypes)
        manifest = ninja_text(out, packages_under(out), compilers, codes, chosen)
        # CPU-only and CUDA builds have a file each: changing between them rebuilds nothing.
        ninja_file = work / ("build.cuda.ninja" if cuda else "build.ninja")
        write_if_different(ninja_file, manifest)
        backends = ("cpu", "cuda") if cuda else ("cpu",)
        stamps = {name: write_stamp(out, name, [name], chosen) for name in names}
        launched = ccache.environment(
            [compilers.cxx, *([compilers.nvcc] if cuda and compilers.nvcc else [])]
        )
        variables = {**launched, **kept_object.environment()}
        ninja = Ninja(out, ninja_file, jobs_of(jobs), verbose, progress, lock, variables)
        ran = _compile(out, stamps, backends, codes, ninja)
        if not cuda:
            _remove_old_cuda(out, stamps, progress)
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


def _check_dtypes(out: Path, names: Sequence[str], dtypes: Sequence[str]) -> None:
    """Refuse a choice of dtypes that leaves nothing of a package."""
    for name in names:
        own = dtypes_of(out / name)
        if dtypes and not set(dtypes) & set(own):
            raise UserError(
                f"--dtypes {','.join(dtypes)}: {name} is for {', '.join(own)} alone, as its spec says"
            )


def _compile(
    out: Path,
    stamps: Mapping[str, Stamp],
    backends: Sequence[str],
    codes: tuple[str, ...],
    ninja: Ninja,
) -> dict[str, list[tuple[str, float]]]:
    """Make the libraries; return what each package's compilers made, with seconds.

    ninja goes by its log and by times. What it takes to be up to date and is not, a library that was cut
    short or came from elsewhere, is removed and made again.
    """
    made: dict[str, list[tuple[str, float]]] = {}

    def run() -> dict[Path, Stamp]:
        for name, ran in ninja.run(
            [f"{name}/_{device}.so" for name in stamps for device in backends]
        ).items():
            made.setdefault(name, []).extend(ran)
        wanted = {
            out / name / f"_{device}.so": replace(
                stamp, device=device, architectures=codes if device == "cuda" else ()
            )
            for name, stamp in stamps.items()
            for device in backends
        }
        return {path: stamp for path, stamp in wanted.items() if not fits(path, stamp)}

    try:
        wrong = run()
    except DamagedObjectError:
        for path in (
            *(p for n in stamps for p in (out / ".build" / n).glob("*.o")),
            *(out / ".build").glob("*.o"),
            *(out / ".build" / "stub").glob("*.so"),
        ):
            path.unlink()
        wrong = run()
    for path in wrong:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(cannot_write(path, error)) from error
    if wrong and (left := run()):
        named = ", ".join(map(str, left))
        raise UserError(f"{named}: not what was linked; another program writes there")
    return made


def _remove_old_cuda(out: Path, stamps: Mapping[str, Stamp], progress: Progress) -> None:
    """Remove CUDA's libraries that are older than the sources, which a build for the CPU leaves there."""
    for name, stamp in stamps.items():
        path = out / name / "_cuda.so"
        if path.exists() and not fits(path, replace(stamp, device="cuda"), of_any_gpu=True):
            path.unlink()
            progress.say(
                f"removed {path}, which is older than its sources; --backend cuda builds it"
            )


def _render(files: Sequence[Path], out: Path, jobs: int | None, progress: Progress) -> set[str]:
    """Write the sources of the packages that are not fresh; return their names."""
    records = {path: _record(out, path) for path in files}
    stale = [p for p in files if not is_rendered(p, out)]
    if not stale:
        return set()
    inputs = [freshness.inputs_of(path) for path in stale]
    packages = render_all(stale, jobs, progress)
    for path, given, package in zip(stale, inputs, packages, strict=True):
        for file, text in package.files.items():
            if write_if_different(out / path.stem / file, text) and file.endswith(".py"):
                # Python takes its cache for new where the source has its size and its second.
                shutil.rmtree(out / path.stem / "__pycache__", ignore_errors=True)
        freshness.write_record(given, package.files, records[path], package.sources)
    return {path.stem for path in stale}


def _record(out: Path, spec: Path) -> Path:
    return out / ".build" / spec.stem / "rendered.json"


def is_rendered(spec: Path, out: Path) -> bool:
    """Return whether the sources of a spec's package in the folder `out` are what it would render to."""
    return freshness.is_fresh(spec, out / spec.stem, _record(out, spec))


def check(
    specs: Sequence[Path],
    *,
    out: Path,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Render in memory and return a diff for each file that differs from what lies in `out`.

    Args:
        specs: spec files, their names, or folders of them; those of specs/ where there are none.
        out: the folder of the packages.
        jobs: processes that render at once; else MAX_JOBS, else what cores and memory allow.
        progress: where to say what takes long.
    """
    differences = []
    for package in render_all(expand(specs), jobs, progress or Silent()):
        for file, text in package.files.items():
            place = out / package.name / file
            present = place.read_text(errors="replace") if place.exists() else ""
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
    removed = [p for device in ("cpu", "cuda") for p in out.glob(f"*/_{device}.so*")]
    for path in removed:
        path.unlink()
    if (out / ".build").exists():
        shutil.rmtree(out / ".build")
        removed.append(out / ".build")
    return removed
