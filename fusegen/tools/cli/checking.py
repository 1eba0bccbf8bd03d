"""The command `fusegen check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from fusegen.base.errors import UserError
from fusegen.toolchain.spec_files import expand
from fusegen.tools.cli.options import ERR, Inputs, ModelDevice, Out, SpecsOrModel, show_table
from fusegen.tools.cli.whole_models import check_model, is_model

__all__ = ["check"]


def check(
    specs: SpecsOrModel = None,
    out: Out = Path("generated"),
    inputs: Inputs = None,
    device: ModelDevice = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(help="Of a model: a dtype.", show_default="float64, float32 and bfloat16"),
    ] = None,
) -> None:
    """Compare built packages with a float64 reference in every dtype, and run gradcheck.

    Of a model, compare what it gives fused with float64: values, gradients and buffers, beside eager's error.
    """
    if is_model(specs or [], inputs):
        check_model((specs or [])[0], inputs, device and device.value, dtype or [])
        return
    if device or dtype:
        raise UserError("--device and --dtype of `fusegen check` are for a model: model.py:Class")
    from fusegen.tools.check import verify

    try:
        verdicts = verify.check(expand([Path(spec) for spec in specs or []]), out)
    except ImportError as error:  # not built, or not loadable; the message says which
        raise UserError(str(error)) from error
    table = Table()
    for column in ("package", "device", "what", "worst", "bound", ""):
        table.add_column(column, overflow="fold")
    for v in verdicts:
        verdict = "ok" if v.passed else "FAILED"
        table.add_row(v.package, v.device, v.what, Text(v.worst), v.bound, verdict)
    show_table(table)
    failed = [v for v in verdicts if not v.passed]
    if failed:
        ERR.print(f"{len(failed)} of {len(verdicts)} checks failed")
        raise typer.Exit(1)
