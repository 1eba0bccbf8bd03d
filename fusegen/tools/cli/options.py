"""Options and output that the commands share."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["ERR", "OUT", "Device", "Inputs", "Out", "Specs"]

OUT = Console(highlight=False)
ERR = Console(stderr=True, highlight=False)

Specs = Annotated[
    list[Path] | None,
    typer.Argument(help="Spec files, their names, or folders of them.", show_default="specs/"),
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
