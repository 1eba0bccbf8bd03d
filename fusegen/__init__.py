"""Fused CUDA and C++ kernels, with exact derivatives, of PyTorch models and of chains of operations.

    >>> import fusegen, torch
    >>> mish = fusegen.fuse("x * tanh(softplus(x))")  # compiles kernels; the next time they are there
    >>> x = torch.randn(64, 128, requires_grad=True)
    >>> mish(x).sum().backward()
    >>> torch.allclose(mish(x), torch.nn.functional.mish(x), atol=1e-6)
    True

`fuse(model, inputs)` returns a model that computes what it can with such kernels; `report` says what that is.
`build` makes a package from a spec, a file of YAML, and `load` imports it. `fusegen -h` lists the commands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from fusegen.base.version import __version__

if TYPE_CHECKING:
    from fusegen.models import fuse, load_fused, report, wait_for_builds
    from fusegen.runtime.memory_format import set_memory_format
    from fusegen.toolchain.results import BuildResults

__all__ = [
    "__version__",
    "build",
    "fuse",
    "load",
    "load_fused",
    "report",
    "set_memory_format",
    "wait_for_builds",
]


def build(
    *specs: str | Path | Mapping[str, str | Mapping[str, Any]],
    out: str | Path = "generated",
    backend: Literal["auto", "cpu", "cuda"] = "auto",
    arch: str | Sequence[str] = (),
    dtypes: str | Sequence[Any] = (),
    portable: bool = False,
    jobs: int | None = None,
    verbose: bool = False,
    quiet: bool = False,
) -> BuildResults:
    """Generate and compile packages; the same as `fusegen build`.

    Args:
        specs: spec files, their names, or folders of them; without any, those of the folder specs/. Or specs
            by name, as text or as dicts: `build({"my_mish": {"chain": ["mish"]}})`.
        out: where the packages are written.
        backend: "cpu", "cuda" (both), or "auto" (CUDA where nvcc and a GPU are).
        arch: GPU architectures, such as "90"; by default that of the present GPU.
        dtypes: dtypes to compile for, such as "bfloat16" or torch.bfloat16; by default those of each spec.
        portable: for the CPU, compile for every instruction set, which takes three times as long and a wheel
            needs; otherwise for this machine alone.
        jobs: processes at once, that render or compile; by default as many as cores and memory allow.
        verbose: show the commands.
        quiet: show nothing; otherwise what is built is shown on standard error.

    Returns:
        What became of each package: a list, which a notebook shows as a table.

    Raises:
        UserError: where a spec is wrong or a compiler is missing.
    """
    from fusegen.toolchain import builder
    from fusegen.toolchain.compilers import for_every_machine
    from fusegen.toolchain.given_specs import files_of_given, path_of
    from fusegen.toolchain.results import BuildResults

    paths: list[Path] = []
    for given in specs:
        paths += (
            files_of_given(given, Path(out)) if isinstance(given, Mapping) else [path_of(given)]
        )
    chosen = dtypes.split(",") if isinstance(dtypes, str) else [str(dtype) for dtype in dtypes]
    options: Any = {"backend": backend, "dtypes": chosen, "jobs": jobs}
    options["arch"] = [arch] if isinstance(arch, str) else arch
    options["verbose"] = verbose
    machine = for_every_machine() if portable else nullcontext()
    if quiet:
        with machine:
            return BuildResults(builder.build(paths, out=Path(out), **options))
    from rich.console import Console

    from fusegen.tools.cli.display import BuildDisplay

    with BuildDisplay(Console(stderr=True, highlight=False), verbose) as display, machine:
        results = builder.build(paths, out=Path(out), progress=display, **options)
    for result in results:
        display.say(str(result))
    return BuildResults(results)


def load(name: str, out: str | Path | None = None) -> ModuleType:
    """Import a generated package from the folder it was built into.

    After another `build` it gives the new chain, as a new module; where nothing changed, the same module.

    Args:
        name: the package's name, which is its spec's file name.
        out: the folder that `build` wrote to; without it, a folder `generated` in the working folder, in one
            around it, or beside the program.

    Raises:
        ImportError: where it was not generated or not compiled, or its library is not of its sources.
    """
    from fusegen.runtime.loading import find_package, load_package

    return load_package(name, find_package(name) if out is None else Path(out))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Return what needs torch when it is first asked for: torch takes seconds to import."""
    if name == "set_memory_format":
        from fusegen.runtime.memory_format import set_memory_format

        return set_memory_format
    if name not in ("fuse", "load_fused", "report", "wait_for_builds"):
        raise AttributeError(f"module 'fusegen' has no attribute {name!r}")
    from fusegen import models

    return getattr(models, name)
