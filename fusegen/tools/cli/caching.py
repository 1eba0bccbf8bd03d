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
    limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Remove those that were not used for longest, until the rest is as small, such as 2GB.",
        ),
    ] = None,
) -> None:
    """Show the packages that are kept of models, with their sizes."""
    from fusegen.toolchain import model_cache

    folder = model_cache.default_folder()
    if clear:
        packages = model_cache.clear(folder, Reports(ERR).say)
    elif limit is not None:
        most = model_cache.bytes_of(limit, "--limit")
        packages = model_cache.trim(folder, most, Reports(ERR).say)
    else:
        packages = model_cache.kept_packages(folder)
        table = Table(title=str(folder), title_justify="left")
        for column in ("package", "built", "used", "MB"):
            table.add_column(column, justify="right" if column == "MB" else "left")
        for package in packages:
            days = map(datetime.datetime.fromtimestamp, (package.built, package.used))
            texts = (f"{day:%Y-%m-%d %H:%M}" for day in days)
            table.add_row(package.name, *texts, f"{package.size / 1e6:.1f}")
        if packages:
            show_table(table)
    total = sum(package.size for package in packages) / 1e6
    what = f"{len(packages)} {'package' if len(packages) == 1 else 'packages'}"
    done = "removed " if clear or limit is not None else ""
    OUT.print(f"{done}{what} in {folder}, {total:.1f} MB", markup=False, soft_wrap=True)
