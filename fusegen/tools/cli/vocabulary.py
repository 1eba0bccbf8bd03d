"""The command `fusegen ops`: what a chain can be made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fusegen.base.errors import UserError
from fusegen.tools.cli.options import OUT, show_table

__all__ = ["ops"]


def ops(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Parts of names, such as softmax, or names of torch, such as nn.GELU.",
            show_default="all ops",
        ),
    ] = None,
    docs: Annotated[
        Path | None, typer.Option(help="Write the manual of the ops into this folder instead.")
    ] = None,
) -> None:
    """List the ops that a chain can use."""
    if docs is not None:
        from fusegen.tools.manual.pages import write

        files, changed = write(docs)
        OUT.print(f"{docs}: {files} files, {changed} changed", markup=False)
        return

    from fusegen.ops import registry

    found = registry()
    if words:
        wanted = {name for word in words for name in _named(word)}
        found = {name: op for name, op in found.items() if name in wanted}
    count = "1 op" if len(found) == 1 else f"{len(found)} ops"
    table = Table(title=count, title_justify="left")
    for column in ("op", "operands", "attributes", "formula", "torch"):
        table.add_column(column, overflow="fold")
    for name, op in found.items():
        attributes = ", ".join(f"{k}={v}" for k, v in op.attributes.items())
        known_as = "".join(f", {alias}" for alias in op.aliases)
        table.add_row(
            name + known_as,
            ", ".join(op.operands),
            attributes,
            Text(op.statement),  # its [brackets] are not markup
            f"torch.{op.torch}" if op.torch else "",
        )
    show_table(table)


def _named(word: str) -> list[str]:
    """Return the ops whose name contains a word, or the one that a name of torch means.

    Raises:
        UserError: if there is none, with what is meant instead.
    """
    from fusegen.ops import registry
    from fusegen.spec.words import meant_op, unknown_op

    names = [
        name
        for name, op in registry().items()
        if any(word.lower() in known for known in (name, *op.aliases))
    ]
    if names:
        return names
    meant = meant_op(word)
    if meant is None:
        raise UserError(unknown_op(word))
    return [meant]
