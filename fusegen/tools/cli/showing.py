"""The command `fusegen show`: what fusegen makes of a spec, as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from fusegen.base.activity import reported
from fusegen.base.errors import UserError
from fusegen.tools.cli.display import Reports
from fusegen.tools.cli.options import ERR, OUT, Out, complete_specs, place_of, show_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fusegen.chain import Chains

__all__ = ["show"]

#: What `--source` prints: all that the kernels of a package are made of, and the language of each file.
_SOURCES = {"element.h": "cpp", "form.h": "cpp", "kernel.cpp": "cpp", "kernel.cu": "cuda"}


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A spec file, the name of one here or in specs/, or a package of a model's report.",
            autocompletion=complete_specs,
        ),
    ],
    out: Out = Path("generated"),
    passes: Annotated[
        bool,
        typer.Option("--passes", help="Show instead what each compiler pass did to each program."),
    ] = False,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="PASS", help="Show instead the programs after a pass."),
    ] = None,
    tex: Annotated[
        bool, typer.Option("--tex", help="Show instead the programs' formulas as LaTeX.")
    ] = False,
    source: Annotated[
        bool, typer.Option("--source", help="Show instead the sources of the kernels.")
    ] = False,
    ptx: Annotated[
        bool,
        typer.Option("--ptx", help="Show instead the PTX of the CUDA kernels, compiled by nvcc."),
    ] = False,
    arch: Annotated[
        str | None,
        typer.Option(
            help="With --ptx: the GPU architecture, such as 90.", show_default="the present GPU's"
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="With --ptx: the dtype.", show_default="float32 if the spec has it"),
    ] = None,
) -> None:
    """Show a chain's programs, its derivatives, its kernels with their approximations, and the files."""
    from fusegen.toolchain.pipeline import derive_all

    chosen = [
        option
        for option, given in (
            ("--passes", passes),
            ("--after", after is not None),
            ("--tex", tex),
            ("--source", source),
            ("--ptx", ptx),
        )
        if given
    ]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)}: give one of them at a time")
    if not ptx and (arch or dtype):
        raise UserError("--arch and --dtype of `fusegen show` are for --ptx")
    path, out = place_of(name, out)
    with reported(name, Reports(ERR).say):
        derived = derive_all(path)
    if tex:
        OUT.print(_tex(derived), markup=False, soft_wrap=True)
    elif after is not None:
        _show_after(derived, after)
    elif passes:
        _show_passes(derived)
    elif source:
        _show_sources(_files(derived, path))
    elif ptx:
        _show_ptx(derived, _files(derived, path), arch, dtype)
    else:
        _show_chain(derived, path, out)


def _show_after(derived: Chains, name: str) -> None:
    from fusegen.lower.show_passes import programs_after

    for program, given in derived.operators:
        for left in programs_after(program, given, name):
            OUT.print(f"{left}\n", markup=False, soft_wrap=True)


def _show_passes(derived: Chains) -> None:
    from fusegen.lower.show_passes import changes

    for program, given in derived.operators:
        table = Table(title=program.name, title_justify="left")
        table.add_column("pass")
        table.add_column("what it did", overflow="fold")
        for each, what in changes(program, given):
            table.add_row(each, Text(what))
        show_table(table)


def _tex(chain: Chains) -> str:
    """Return a chain's programs as LaTeX for amsmath."""
    from fusegen.tools.typeset import aligned, equations

    return "\n\n".join(
        f"% {program.name}\n{aligned(found)}"
        for mode in chain.modes
        for program, found in zip(mode.programs, equations(mode.programs), strict=True)
    )


def _files(derived: Chains, path: Path) -> Mapping[str, str]:
    """Return the files of a chain's package, whether they are written or not."""
    from fusegen import render
    from fusegen.toolchain import tuned

    return render.render(derived, tuned.read(path))


def _show_sources(files: Mapping[str, str]) -> None:
    """Print the sources of the kernels, highlighted on a terminal."""
    for name, language in _SOURCES.items():
        OUT.print(f"// ==== {name} ====", style="bold", markup=False, soft_wrap=True)
        _print_code(f"{files[name]}\n", language)


def _show_ptx(
    derived: Chains, files: Mapping[str, str], arch: str | None, dtype: str | None
) -> None:
    """Print the PTX of a package."""
    from fusegen.toolchain.ptx import ptx_of

    _print_code(ptx_of(derived.spec.name, files, derived.spec.dtypes, arch, dtype), "ptx")


def _print_code(text: str, language: str) -> None:
    """Print a source in colours; in a file or a pipe as it is."""
    if not OUT.is_terminal:
        OUT.file.write(text)
        return
    shown = Syntax(text, language, theme="ansi_dark", background_color="default", word_wrap=True)
    OUT.print(shown)


def _show_chain(derived: Chains, path: Path, out: Path) -> None:
    """Print the programs, the kernels, the approximations and the generated files."""
    from fusegen.toolchain import tuned
    from fusegen.tools.report.approximations import approximations
    from fusegen.tools.report.kernels import kernels_of

    OUT.print(derived.describe(), markup=False, soft_wrap=True)
    files = _files(derived, path)
    table = Table(title="kernels", title_justify="left")
    for column in ("kernel", "its form, and why", "on the CPU", "on a GPU"):
        table.add_column(column, overflow="fold")
    for kernel in kernels_of(derived, tuned.read(path)):
        table.add_row(*map(Text, (kernel.name, kernel.why, kernel.cpu[0], kernel.gpu[0])))
    show_table(table)
    found = approximations(derived, files["element.h"])
    if found:
        table = Table(title="approximations", title_justify="left")
        for column in ("in", "polynomial for", "float32", "16 bits", "from"):
            table.add_column(column, overflow="fold")
        for each in found:
            accuracies = [each.accuracy.get(kind, "") for kind in ("float32", "16 bits")]
            cells = (", ".join(each.functions), each.formula, *accuracies, each.place)
            table.add_row(*map(Text, cells))
        show_table(table)
    folder = out / derived.spec.name
    if not folder.is_dir():
        OUT.print(f"{folder} is not there yet: run `fusegen build`", markup=False, soft_wrap=True)
        return
    table = Table(title=str(folder), title_justify="left")
    table.add_column("file")
    table.add_column("lines", justify="right")
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".h", ".cpp", ".cu", ".py")):
        table.add_row(file.name, str(len(file.read_bytes().splitlines())))
    show_table(table)
