"""Packages of a few lines of C++ without torch, for tests of building them.

A "spec" here is the text of its kernel.cpp, which defines `int kernel()`; `answer` calls it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from fusegen.base.errors import SpecError
from fusegen.toolchain import builder
from fusegen.toolchain.builder import BuildResult
from fusegen.toolchain.compilers import cpu_isas
from fusegen.toolchain.rendered import RenderedPackage

#: kernel.cpp is compiled for each instruction set; the linker keeps one of these.
WEAK = "__attribute__((weak))"
BINDING = """int kernel();
extern "C" __attribute__((visibility("default"))) int answer() { return kernel(); }
"""
#: What becomes of kernel.cpp, and of a whole package.
KERNELS = {f"kernel_{isa}.o" for isa in cpu_isas()}
ALL = {*KERNELS, "binding_cpu.o", "stamp.o", "_cpu.so"}

#: A process that builds the same packages as `render` below.
DRIVER = """
import sys, types
from pathlib import Path
class Package:
    sources = ()
    def __init__(self, path):
        self.name = path.stem
        self.files = {{"kernel.cpp": path.read_text(), "binding.cpp": {binding!r}}}
sys.modules["fusegen.toolchain.pipeline"] = types.SimpleNamespace(render_package=Package)
from fusegen.base import paths
from fusegen.toolchain import builder
paths.binding = lambda: Path(sys.argv[2]).parent / "shared.cpp"
builder.build([Path(sys.argv[1])], out=Path(sys.argv[2]), backend="cpu", jobs=1)
"""

#: A compiler that notes in a log when it starts and ends, and can be slow.
COMPILER = """#!/bin/sh
echo "start $*" >> "{log}"
{before}
{gxx} "$@"
code=$?
echo "end $*" >> "{log}"
exit $code
"""


def render(path: Path) -> RenderedPackage:
    text = path.read_text()
    if text.startswith("!"):
        raise SpecError("a mistake", path, 1)
    return RenderedPackage(path.stem, {"kernel.cpp": text, "binding.cpp": BINDING})


def kernel(value: int) -> str:
    return f"{WEAK} int kernel() {{ return {value}; }}\n"


@dataclass
class Heard:
    """What a build says."""

    lines: list[str] = field(default_factory=list)
    steps: list[tuple[int, int, str]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)

    def step(self, done: int, total: int, what: str) -> None:
        self.steps.append((done, total, what))


class Workshop:
    """A folder of specs and one of packages, rendered by `render`; nothing of the user's is seen."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out = folder / "out"
        self._folder = folder
        self._monkeypatch = monkeypatch
        monkeypatch.setattr("fusegen.toolchain.pipeline.render_package", render)
        # A process of its own would know nothing of `render`.
        monkeypatch.setattr("fusegen.toolchain.render_pool.cores", lambda: 1)
        for variable in ("MAX_JOBS", "CXX", "FUSEGEN_LOCK_TIMEOUT"):
            monkeypatch.delenv(variable, raising=False)
        for variable in ("FUSEGEN_CCACHE", "FUSEGEN_OBJECTS"):
            monkeypatch.setenv(variable, "0")  # tests count what compilers do
        # These packages share no code with torch.
        self.shared = folder / "shared.cpp"
        self.shared.write_text("")
        monkeypatch.setattr("fusegen.base.paths.binding", lambda: self.shared)
        (folder / "specs").mkdir()

    def spec(self, name: str, text: str) -> Path:
        """Write a spec."""
        path = self._folder / "specs" / f"{name}.yaml"
        path.write_text(text)
        return path

    def build(self, *specs: Path, **options: Any) -> dict[str, BuildResult]:
        """Build for the CPU, unless the options say more."""
        results = builder.build(specs, out=self.out, **{"backend": "cpu", **options})
        return {result.name: result for result in results}

    def compiler(self, before: str = "") -> Path:
        """Put a compiler in CXX that runs a line of shell first; return the log of its calls."""
        log, script = self._folder / "calls", self._folder / "noting-g++"
        script.write_text(COMPILER.format(log=log, before=before, gxx=shutil.which("g++")))
        script.chmod(0o755)
        log.unlink(missing_ok=True)
        self._monkeypatch.setenv("CXX", str(script))
        return log


def answer(library: Path) -> int:
    """Load a library, from a place of its own so that no older one is given again, and ask it."""
    copy = library.with_name(f"{time.monotonic_ns()}.so")
    shutil.copy(library, copy)
    return int(ctypes.CDLL(str(copy)).answer())


def start(spec: Path, out: Path) -> subprocess.Popen[str]:
    """Build in another process, which leads a process group of its own."""
    command = [sys.executable, "-c", DRIVER.format(binding=BINDING), str(spec), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, text=True, stderr=subprocess.PIPE
    )


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.01)


def overlap(log: Path) -> int:
    """Return how many compilers ran at once."""
    running = most = 0
    for line in log.read_text().splitlines():
        running += 1 if line.startswith("start ") else -1
        most = max(most, running)
    return most
