"""fusegen: a chain of operations in YAML becomes fused CUDA and C++ kernels with exact derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from fusegen.version import __version__

if TYPE_CHECKING:
    from fusegen.builder import BuildResult

__all__ = ["__version__", "build", "load"]


def build(
    *specs: str | Path,
    out: str | Path = "generated",
    backend: Literal["auto", "cpu", "cuda"] = "auto",
    arch: Sequence[str] = (),
    jobs: int | None = None,
    verbose: bool = False,
) -> list[BuildResult]:
    """Generate and compile packages; the same as `fusegen build`.

    Args:
        specs: spec files, or folders of them.
        out: where the packages are written.
        backend: "cpu", "cuda" (both), or "auto" (CUDA where nvcc and a GPU are).
        arch: GPU architectures, such as "90"; by default that of the present GPU.
        jobs: compilers at once; by default as many as cores and memory allow.
        verbose: show the commands.

    Raises:
        UserError: where a spec is wrong or a compiler is missing.
    """
    from fusegen import builder

    paths = [Path(s) for s in specs]
    return builder.build(
        paths, out=Path(out), backend=backend, arch=arch, jobs=jobs, verbose=verbose
    )


def load(name: str, out: str | Path = "generated") -> ModuleType:
    """Import a generated package from the folder it was built into.

    Args:
        name: the package's name, which is its spec's file name.
        out: the folder that `build` wrote to.

    Raises:
        ImportError: where it was not generated or not compiled.
    """
    from fusegen.runtime.loading import load_package

    return load_package(name, Path(out))
