"""The command `fusegen import`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from fusegen.base.errors import UserError
from fusegen.tools.cli.options import OUT, show_table

if TYPE_CHECKING:
    from fusegen.models import Report
    from fusegen.models.imported import ImportedSpec

__all__ = ["import_"]


def import_(
    model: Annotated[
        str,
        typer.Argument(
            help="model.py:Class, model.py:Class(width=64), package.module:Class; also a variable, "
            "or a function that returns a model."
        ),
    ],
    inputs: Annotated[
        str,
        typer.Option(
            help="Example inputs, such as 4x128x512, x=4x128:bfloat16,mask=4x128:bool or "
            "ids=4x128:int64:1000 (integers below 1000)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder of the specs.")] = Path("specs"),
    order: Annotated[
        int, typer.Option(min=1, max=3, help="How many derivatives the specs have.")
    ] = 1,
    dtype: Annotated[
        str | None,
        typer.Option(help="Convert the model to it, such as bfloat16.", show_default="as it is"),
    ] = None,
    evaluation: Annotated[
        bool, typer.Option("--eval", help="Read the model as in evaluation.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace specs that are there.")] = False,
) -> None:
    """Write a spec for each kind of region that can be fused in a PyTorch model; build nothing."""
    import torch
    from torch import nn

    from fusegen.base.dtypes import DTYPES
    from fusegen.models.imported import import_model
    from fusegen.tools.bench.cells import one_of
    from fusegen.tools.importing import inputs_of, model_of, write_specs

    wanted = [getattr(torch, name) for name in one_of("--dtype", [dtype] if dtype else [], DTYPES)]
    torch.manual_seed(0)
    made = model_of(model)
    if isinstance(made, nn.Module):
        made = made.to(wanted[0]) if wanted else made
        made = made.eval() if evaluation else made
    given = inputs_of(inputs, made, *wanted)
    specs, report = import_model(made, given, title=model, order=order)
    if not specs:
        raise UserError("\n".join([f"there is nothing to fuse in {model}:", *_left(report)]))
    paths = write_specs(specs, out, force=force)
    show_table(_table(specs, out))
    left = _left(report)
    if left:
        OUT.print("\n".join(["not in a spec:", *left]), markup=False, soft_wrap=True)
    named = shlex.join([str(out)] if {*out.glob("*.yaml")} == {*paths} else map(str, paths))
    OUT.print(
        f"next: edit the specs, then `fusegen build {named}`; `fusegen show {shlex.quote(str(paths[0]))}` "
        "prints the formulas and derivatives",
        markup=False,
        soft_wrap=True,
    )


def _table(specs: list[ImportedSpec], out: Path) -> Table:
    count = f"{len(specs)} {'spec' if len(specs) == 1 else 'specs'}"
    table = Table(title=f"{count} in {out}", title_justify="left")
    for column in ("spec", "where", "ops", "shape"):
        table.add_column(column, overflow="fold", no_wrap=column == "spec")
    table.add_column("times", justify="right")
    table.add_column("bytes moved", justify="right")
    for spec in specs:
        places = list(dict.fromkeys(place or "the model itself" for place in spec.places))
        where = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        texts = [spec.name, where, " ".join(spec.ops), spec.shape]
        moved = " -> ".join(map(decimal, (spec.cost.bytes_before, spec.cost.bytes_after)))
        table.add_row(*map(Text, texts), str(len(spec.places)), moved)
    return table


def _left(report: Report) -> list[str]:
    """Return a line for each reason for which something is in no spec."""
    lines = [f"  {what}: {count}" for what, count in report.changed.items() if count]
    lines += [f"  {' '.join(r.ops)}: {r.reason}" for r in report.regions if r.reason]
    functions: dict[str, list[str]] = {}
    for (name, reason), count in report.left.most_common():
        functions.setdefault(reason, []).append(f"{name} x {count}")
    return [*lines, *(f"  {', '.join(names)}: {reason}" for reason, names in functions.items())]
