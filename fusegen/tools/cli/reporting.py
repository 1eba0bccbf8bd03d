"""The command `fusegen report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fusegen.base.errors import UserError
from fusegen.toolchain.spec_files import expand
from fusegen.tools.cli.options import ERR, OUT, Inputs, ModelDevice, Out, SpecsOrModel, place_of
from fusegen.tools.cli.whole_models import is_model

if TYPE_CHECKING:
    from fusegen.tools.report.times import Times

__all__ = ["report"]


def report(
    specs: SpecsOrModel = None,
    out: Out = Path("generated"),
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page.")
    ] = Path("report.html"),
    inputs: Inputs = None,
    device: ModelDevice = None,
    everything: Annotated[
        bool,
        typer.Option("--everything", help="Of a model: fuse what would not get faster, too."),
    ] = False,
    time: Annotated[
        bool,
        typer.Option(
            "--time", help="Time each chain, or the model, beside eager and torch.compile."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that this command did not write.")
    ] = False,
) -> None:
    """Write one HTML page: formulas, curves, errors, times, kernels and sources; of a model, its graph too.

    The page needs no network. Errors are measured where the packages are built for the CPU, times with
    --time. A model is fused, and runs once.
    """
    from fusegen.base.files import write_if_different
    from fusegen.tools.report.page import MARK, page

    if output.is_dir():
        output = output / "report.html"
    if output.exists() and not output.read_text(errors="replace").startswith(MARK) and not force:
        raise UserError(f"{output} is there, and not from this command; --force replaces it")
    model, model_times = None, None
    times: dict[str, Times] = {}
    if is_model(specs or [], inputs):
        from fusegen.tools.report.model import part_of, report_of

        (title,) = specs or []
        fused = report_of(title, inputs, device and device.value, everything=everything)
        model = part_of(title, fused)
        found = list(model.specs)
        if time:
            from fusegen.tools.report.times import times_of_model

            where = device and device.value
            model_times = times_of_model(title, inputs, where, _say, everything=everything)
    elif everything or (device and not time):
        raise UserError(
            "--everything is for a model, model.py:Class; --device for one, or for --time"
        )
    else:
        found = _found(specs or [], out)
    if time and model is None:
        from fusegen.tools.bench.command import device as device_of
        from fusegen.tools.report.times import times_of_chains

        where = device_of(device and device.value)
        for path, folder in found:
            times |= times_of_chains(path, folder, where, _say)
    text = page(found, model, _say, times, model_times)
    write_if_different(output, text)
    size, chains = len(text.encode()) / 1e3, text.count("<article id=")
    OUT.print(
        f"{output}: {chains} {'chain' if chains == 1 else 'chains'}, {size:.0f} kB",
        markup=False,
        soft_wrap=True,
    )


def _found(specs: list[str], out: Path) -> list[tuple[Path, Path]]:
    """Return the spec files, each with the folder of its package; without any, those of specs/."""
    found: dict[Path, Path] = {}
    for text in specs:
        if Path(text).is_dir():
            found |= dict.fromkeys(expand([Path(text)]), out)
        else:
            path, folder = place_of(text, out)
            found[path] = folder
    return [(path, found.get(path, out)) for path in expand(list(found))]


def _say(name: str) -> None:
    ERR.print(name, markup=False, soft_wrap=True)
