"""Deriving several specs at once: the same packages, the same messages, and nothing that stays behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from shared.tiny_packages import Heard, wait_until

from fusegen.base.errors import SpecError, UserError
from fusegen.spec.formula.syntax import FormulaError
from fusegen.toolchain import builder, jobs, pipeline, render_pool, render_worker

#: A script without `if __name__ == "__main__"`, which must not run twice.
SCRIPT = """
import sys
from pathlib import Path
from fusegen.toolchain import builder, render_pool
{declaration}
render_pool.cores = lambda: 2
print("runs", flush=True)
print(len(builder.check([Path("specs")], out=Path("out"))), "sympy" in sys.modules)
"""
#: An op and an atom that only the script's own process knows, and a step that uses each.
OWN_OP = """
from fusegen.ops import op

@op(torch="nothing")
def thrice(x):
    "3 x. Here."
    return 3 * x
"""
OWN_ATOM = """
import mpmath
from fusegen.atoms import Atom, Pointwise, cosh

@Atom(
    word="gd",
    derivative=lambda x: 1 / cosh(x),
    value=lambda x: 2 * mpmath.atan(mpmath.tanh(x / 2)),
    torch=lambda torch, x: 2 * torch.atan(torch.tanh(x / 2)),
    cpp="T(2) * std::atan(std::tanh(T(0.5) * {0}))",
)
class gd(Pointwise):
    nargs = 1
"""
DECLARATIONS = {
    "plain": ("", "tanh"),
    "op": (OWN_OP, "thrice"),
    "atom": (OWN_ATOM, "expr: gd(x)"),
}


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_pool, "cores", lambda: 2)
    monkeypatch.delenv("MAX_JOBS", raising=False)


def write(folder: Path, *ops: str) -> list[Path]:
    """Write a spec of each op, numbered as a, b and so on."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{'abcdefgh'[n]}.yaml" for n in range(len(ops))]
    for path, op in zip(paths, ops, strict=True):
        path.write_text(f"chain:\n  - {op}\n")
    return paths


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(code)
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_workers_derive_what_this_process_derives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = write(tmp_path, "softmax", "relu", "tanh")
    (tmp_path / "sympy.py").write_text("raise SystemExit('a module of another name')")
    monkeypatch.chdir(tmp_path)
    here = [pipeline.render_package(path) for path in specs]

    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} is derived here")

    monkeypatch.setattr(pipeline, "render_package", refuse)
    heard = Heard()
    assert render_pool.render_all(specs, None, heard) == here  # in the order of the specs
    assert [(done, total) for done, total, _ in heard.steps] == [(1, 3), (2, 3), (3, 3)]
    assert {what for _, _, what in heard.steps} == {f"derived {path.stem}" for path in specs}


@pytest.mark.parametrize("single", ["spec", "core", "job", "variable"])
def test_nothing_is_started_for_one(
    single: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = write(tmp_path, *(["relu"] if single == "spec" else ["relu", "tanh"]))
    monkeypatch.setattr(render_pool, "cores", lambda: 1 if single == "core" else 2)
    if single == "variable":
        monkeypatch.setenv("MAX_JOBS", "1")
    monkeypatch.setattr(render_pool, "_MODULE", "no.such.module")
    packages = render_pool.render_all(specs, 1 if single == "job" else None, Heard())
    assert [package.name for package in packages] == [path.stem for path in specs]


def test_memory_bounds_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "cores", lambda: 64)
    free = 5 * jobs.WORKER // os.sysconf("SC_PAGE_SIZE") + 1
    known = {"SC_PAGE_SIZE": os.sysconf("SC_PAGE_SIZE"), "SC_AVPHYS_PAGES": free}
    monkeypatch.setattr(os, "sysconf", known.__getitem__)
    assert jobs.jobs(None, jobs.WORKER) == 5
    assert jobs.jobs(None) == 1  # a compiler takes more


def test_each_wrong_spec_is_named_and_stops_no_other(tmp_path: Path) -> None:
    specs = write(tmp_path, "relu", "swich", "expr: 'x +'", "tanh")
    heard = Heard()
    with pytest.raises(UserError) as caught:
        render_pool.render_all(specs, None, heard)
    first, *each = str(caught.value).splitlines()
    assert first == "2 of 4 specs are wrong:"
    assert [line.startswith(f"{path}:2: ") for line, path in zip(each, specs[1:3], strict=True)]
    assert {what for _, _, what in heard.steps} == {"derived a", "derived d"}


@pytest.mark.slow
def test_a_single_mistake_is_the_error_itself(tmp_path: Path) -> None:
    specs = write(tmp_path, "relu", "swich")
    with pytest.raises(SpecError, match=r"b.yaml:2: .*swish") as caught:
        builder.check(specs, out=tmp_path / "out")
    assert (caught.value.file, caught.value.line) == (specs[1], 2)


@pytest.mark.slow
def test_a_bug_shows_where_it_is(tmp_path: Path) -> None:
    specs: list[Any] = [*write(tmp_path, "relu"), "a text"]
    with pytest.raises(AttributeError, match="stem") as caught:
        render_pool.render_all(specs, None, Heard())
    assert "render_worker.py" in caught.value.__notes__[0]


def test_an_error_of_any_constructor_arrives() -> None:
    sent = render_worker._sendable(FormulaError("a mistake", 3))
    arrived = pickle.loads(pickle.dumps(sent))
    assert isinstance(arrived, UserError)
    assert str(arrived) == "a mistake (column 3)"


def test_a_worker_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_pool, "_MODULE", "fusegen.base.version")  # it ends at once
    with pytest.raises(UserError, match=r"\.yaml: the process .* ended with code 0, .*--jobs 1"):
        render_pool.render_all(write(tmp_path, "relu", "tanh"), None, Heard())


@pytest.mark.slow
@pytest.mark.parametrize("declared", DECLARATIONS)
def test_a_script_needs_no_guard_and_may_declare_ops_and_atoms(
    declared: str, tmp_path: Path
) -> None:
    """What the script declares is its own process's alone."""
    declaration, step = DECLARATIONS[declared]
    write(tmp_path / "specs", "relu", step)
    done = run(tmp_path, SCRIPT.format(declaration=declaration))
    # Six files of either are missing. A process that only waits for others does not import sympy.
    assert done.stdout.splitlines() == ["runs", f"14 {bool(declaration)}"], done.stderr


def children(process: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc here")
@pytest.mark.skipif(jobs.cores() < 2, reason="one core starts no worker")
def test_ctrl_c_ends_the_workers_and_shows_no_traceback(tmp_path: Path) -> None:
    write(tmp_path / "specs", *["softmax"] * 8)
    build = subprocess.Popen(
        [sys.executable, "-m", "fusegen", "build", "specs", "--check"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(children(build.pid)) == 2)
    workers = children(build.pid)
    os.killpg(build.pid, signal.SIGINT)
    _, said = build.communicate(timeout=20)
    assert build.returncode not in (0, None)
    assert "Traceback" not in said
    wait_until(lambda: not [pid for pid in workers if _runs(pid)])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc here")
@pytest.mark.skipif(jobs.cores() < 2, reason="one core starts no worker")
def test_workers_of_a_killed_build_end(tmp_path: Path) -> None:
    write(tmp_path / "specs", *["softmax"] * 8)
    build = subprocess.Popen(
        [sys.executable, "-m", "fusegen", "build", "specs", "--check"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: len(children(build.pid)) == 2)
    workers = children(build.pid)
    build.kill()
    build.wait()
    wait_until(lambda: not [pid for pid in workers if _runs(pid)])


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
