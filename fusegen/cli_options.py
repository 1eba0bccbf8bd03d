"""What the commands share: their options, and where they print."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fusegen.errors import UserError, nearest

__all__ = ["ERR", "OUT", "Device", "Out", "Specs", "spec_path"]

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)

Specs = Annotated[
    list[Path] | None, typer.Argument(help="Spec files, or folders of them.", show_default="specs/")
]
Out = Annotated[Path, typer.Option("--out", help="The folder of the generated packages.")]


class Device(enum.StrEnum):
    """Where to run."""

    cpu = "cpu"
    cuda = "cuda"


def spec_path(name: str) -> Path:
    """Return the spec file that a name on the command line means.

    Raises:
        UserError: where there is none.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = {p.stem: p for p in Path("specs").glob("*.y*ml")}
    if name not in known:
        raise UserError(
            f"no spec file and no spec in specs/ is called {name!r}{nearest(name, known)}"
        )
    return known[name]
