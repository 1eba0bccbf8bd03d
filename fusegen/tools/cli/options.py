"""Options and output that the commands share."""

from __future__ import annotations

import enum
import io
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

__all__ = [
    "ERR",
    "OUT",
    "Device",
    "Inputs",
    "ModelDevice",
    "Out",
    "Specs",
    "SpecsOrModel",
    "complete_specs",
    "place_of",
    "show_table",
]

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)

#: Wider than any table.
_WIDE = 10_000


def complete_specs(incomplete: str) -> list[str]:
    """Return what a shell offers for a spec: names here and in specs/, and files and folders."""
    from fusegen.toolchain.spec_files import specs_in

    folders = [folder for folder in map(Path, ("", "specs")) if folder.is_dir()]
    names = {path.stem for folder in folders for path in specs_in(folder)}
    parent = Path(incomplete).parent if not incomplete.endswith("/") else Path(incomplete)
    beside = parent.iterdir() if parent.is_dir() else ()
    paths = {f"{path}/" if path.is_dir() else str(path) for path in beside}
    files = {path for path in paths if path.endswith(("/", ".yaml", ".yml"))}
    return sorted(word for word in names | files if word.startswith(incomplete))


def place_of(name: str, out: Path) -> tuple[Path, Path]:
    """Return the spec file for a path or a name, and the folder of its package.

    A package in the report of a model has its name there too.

    Args:
        name: what the command line says.
        out: the folder of the packages of specs.

    Raises:
        UserError: if there is no such spec.
    """
    from fusegen.toolchain import model_cache
    from fusegen.toolchain.spec_files import find_spec

    kept = model_cache.default_folder()
    path = kept / "specs" / f"{Path(name).name}.yaml"
    if path.is_file() and Path(name).name == name:
        return path, kept / "generated"
    return find_spec(name), out


def show_table(table: Table) -> None:
    """Print a table. In a file or a pipe no cell is wrapped and no line is padded."""
    if OUT.is_terminal:
        OUT.print(table)
        return
    title, table.title = table.title, None
    if title:
        OUT.print(title, markup=False, soft_wrap=True)
    console = Console(file=io.StringIO(), width=_WIDE, highlight=False)
    with console.capture() as captured:
        console.print(table)
    lines = (line.rstrip() for line in captured.get().splitlines())
    OUT.print("\n".join(lines), markup=False, soft_wrap=True)


Specs = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Spec files, their names, or folders of them.",
        show_default="specs/",
        autocompletion=complete_specs,
    ),
]
SpecsOrModel = Annotated[
    list[str] | None,
    typer.Argument(
        help="Spec files, their names, or folders of them; or one model: model.py:Class.",
        show_default="specs/",
        autocompletion=complete_specs,
    ),
]
Out = Annotated[Path, typer.Option("--out", help="The folder of the generated packages.")]

Inputs = Annotated[
    str | None,
    typer.Option(
        help="Of a model: example inputs, such as 4x128x512 or x=4x128,ids=4x128:int64:1000.",
        show_default=False,
    ),
]


class Device(enum.StrEnum):
    """Where to run."""

    cpu = "cpu"
    cuda = "cuda"


ModelDevice = Annotated[
    Device | None,
    typer.Option(help="Of a model: where it runs.", show_default="cuda where there is a GPU"),
]
