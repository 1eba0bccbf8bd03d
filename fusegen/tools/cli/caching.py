"""`fusegen cache`: the packages that models have left, and how they are removed."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer
from rich.table import Table

from fusegen.tools.cli.display import Reports
from fusegen.tools.cli.options import ERR, OUT, show_table

__all__ = ["cache"]


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove them.")] = False,
) -> None:
    """Show the packages that are kept of models, with their sizes."""
    from fusegen.toolchain import model_cache

    folder = model_cache.default_folder()
    if clear:
        packages = model_cache.clear(folder, Reports(ERR).say)
    else:
        packages = model_cache.kept_packages(folder)
        table = Table(title=str(folder), title_justify="left")
        for column in ("package", "built", "MB"):
            table.add_column(column, justify="right" if column == "MB" else "left")
        for package in packages:
            day = datetime.datetime.fromtimestamp(package.built)
            table.add_row(package.name, f"{day:%Y-%m-%d %H:%M}", f"{package.size / 1e6:.1f}")
        if packages:
            show_table(table)
    total = sum(package.size for package in packages) / 1e6
    what = f"{len(packages)} {'package' if len(packages) == 1 else 'packages'}"
    done = "removed " if clear else ""
    OUT.print(f"{done}{what} in {folder}, {total:.1f} MB", markup=False, soft_wrap=True)
