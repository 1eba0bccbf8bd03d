"""The commands `fusegen package` and `fusegen kernels-hub`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fusegen.tools.cli.options import OUT, show_table

__all__ = ["kernels_hub", "package"]


def package(
    packages: Annotated[
        list[Path],
        typer.Argument(help="Built packages: their folders, such as generated/my_act, or names."),
    ],
    name: Annotated[
        str, typer.Option(help="The wheel's name, which its users import.", show_default=False)
    ],
    version: Annotated[str, typer.Option(help="The wheel's version.")] = "1.0",
    out: Annotated[Path, typer.Option("--out", help="The folder for the wheel.")] = Path("dist"),
) -> None:
    """Write built packages as a wheel that needs torch alone: no compiler, and no fusegen."""
    from fusegen.tools.shipping import write_wheel

    wheel = write_wheel(packages, name, version, out)
    table = Table()
    for column in ("import", "dtypes", "GPUs"):
        table.add_column(column, overflow="fold")
    for built in wheel.packages:
        gpus = ", ".join(f"sm_{number}" for number in sorted(built.architectures, key=int))
        table.add_row(
            f"{name}.{built.name}",
            ", ".join(built.dtypes),
            f"{gpus} and newer ones" if gpus else "none",
        )
    show_table(table)
    glibc = f", for glibc {wheel.glibc} and later" if wheel.glibc else ""
    OUT.print(
        f"{wheel.path}: {wheel.path.stat().st_size / 1e6:.1f} MB{glibc}; `pip install {wheel.path}`",
        markup=False,
        soft_wrap=True,
    )


def kernels_hub(
    name: Annotated[
        Path, typer.Argument(help="A built package: its folder, or its name in generated/.")
    ],
    version: Annotated[int, typer.Option(min=0, help="The kernel's version.")] = 1,
    license_name: Annotated[
        str, typer.Option("--license", help="The kernels' licence, as the hub calls it.")
    ] = "apache-2.0",
    out: Annotated[Path, typer.Option("--out", help="The folder for the kernel.")] = Path("hub"),
) -> None:
    """Lay a built package out as a kernel of Hugging Face's hub, for the library `kernels`."""
    from fusegen.tools.shipping import write_hub_kernel

    kernel = write_hub_kernel(name, version, license_name, out)
    for variant in kernel.variants:
        OUT.print(f"{kernel.folder / 'build' / variant}", markup=False, soft_wrap=True)
    glibc = f"; it needs glibc {kernel.glibc}" if kernel.glibc else ""
    OUT.print(f"layer {kernel.layer}{glibc}", markup=False, soft_wrap=True)
