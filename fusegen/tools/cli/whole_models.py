"""`fusegen check` and `fusegen bench` of a model: itself fused against itself as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from fusegen.base.errors import UserError
from fusegen.tools.cli.options import ERR, OUT, show_table

if TYPE_CHECKING:
    import torch

    from fusegen.models import Report
    from fusegen.tools.against_eager.bench import Timed
    from fusegen.tools.against_eager.check import Verdict

__all__ = ["bench_model", "check_model", "is_model"]


def is_model(texts: Sequence[str], inputs: str | None) -> bool:
    """Return whether the arguments of a command name a model, not specs.

    Raises:
        UserError: if they name several models, or a model and specs, or `--inputs` has no model.
    """
    models = [text for text in texts if ":" in text]
    if models and len(texts) > 1:
        raise UserError(f"give one model at a time: {models[0]} alone")
    if inputs is not None and not models:
        raise UserError("--inputs is for a model, such as model.py:Class; specs need none")
    return bool(models)


def check_model(text: str, inputs: str | None, device: str | None, dtypes: Sequence[str]) -> None:
    """Compare a model with itself fused; exit with 1 if something is wrong."""
    from fusegen.models import FusegenBackend
    from fusegen.tools.against_eager.check import DTYPES, INPUTS, check
    from fusegen.tools.against_eager.original import original_of

    original = original_of(text, inputs, device)
    backend = FusegenBackend(order=1, everything=True)
    verdicts = check(original, backend, _dtypes(dtypes) or DTYPES, _say)
    table = Table(
        title=f"errors of {text} fused, in units of eager's own; {INPUTS} random inputs",
        title_justify="left",
    )
    for column in ("dtype", "mode", "outputs", "gradients", "buffers", "largest", ""):
        table.add_column(column, overflow="fold")
    for verdict in verdicts:
        table.add_row(*map(Text, _row(verdict)))
    show_table(table)
    OUT.print(_text(backend.report), markup=False, soft_wrap=True)
    for verdict in verdicts:
        for what in verdict.wrong:
            ERR.print(f"{verdict.dtype}, {verdict.mode}: {what}", markup=False, soft_wrap=True)
        if verdict.skipped:
            text = f"{verdict.dtype}, {verdict.mode} is not compared: {verdict.skipped}"
            ERR.print(text, markup=False, soft_wrap=True)
    if any(v.wrong for v in verdicts):
        raise typer.Exit(1)


def bench_model(
    text: str,
    inputs: str | None,
    device: str | None,
    dtypes: Sequence[str],
    *,
    compiled: bool,
    everything: bool,
    rounds: int | None,
    seconds: float,
) -> None:
    """Time a model as it is, compiled by torch, and fused; begin nothing more after some seconds."""
    import torch

    from fusegen.models import FusegenBackend
    from fusegen.tools.against_eager.bench import bench
    from fusegen.tools.against_eager.original import nothing_fused, original_of
    from fusegen.tools.bench.compiling import forget
    from fusegen.tools.bench.timing import Deadline

    original = original_of(text, inputs, device)
    deadline = Deadline(seconds)
    found, reports = [], []
    for dtype in _dtypes(dtypes) or [original.dtype]:
        fused = FusegenBackend(order=1, everything=everything)
        backends: dict[str, FusegenBackend | str | None] = {"eager": None}
        if compiled:
            backends["torch.compile"] = "inductor"
        backends["fusegen"] = fused
        if compiled:
            backends["fusegen, inductor"] = FusegenBackend(
                order=1, everything=everything, rest="inductor"
            )
        found += bench(original, backends, dtype, _say, rounds, deadline)
        reports.append(fused.report)
        forget()
    if not any(report.fused for report in reports):
        raise nothing_fused(text, reports[0])
    where = torch.cuda.get_device_name() if original.device == "cuda" else "the CPU"
    show_table(_times(f"{text} on {where}, medians in ms", found, deadline.left))
    if deadline.left:
        OUT.print(f"{deadline}", markup=False, soft_wrap=True)
    OUT.print(_text(reports[0]), markup=False, soft_wrap=True)


def _times(title: str, found: Sequence[Timed], left: Sequence[str]) -> Table:
    """Return a table with a row for each dtype and pass; what was left out is empty."""
    subjects = list(dict.fromkeys(label for timed in found for label in timed.ms))
    table = Table(title=title, title_justify="left")
    table.add_column("dtype")
    table.add_column("pass")
    for label in subjects:
        table.add_column(label, justify="right")
    for timed in found:
        missing = {
            label: "" if f"{timed.dtype}: {timed.name} of {label}" in left else "fails"
            for label in subjects
        }
        times = [f"{timed.ms[k]:.4g}" if k in timed.ms else missing[k] for k in subjects]
        table.add_row(timed.dtype, timed.name, *times)
        if timed.peak:
            peaks = [timed.peak.get(label) for label in subjects]
            shown = ["" if peak is None else f"{peak / 2**20:.0f} MiB" for peak in peaks]
            table.add_row("", "  at its peak", *shown)
        if timed.wall:
            walls = [timed.wall.get(label) for label in subjects]
            shown = ["" if wall is None else f"{wall:.4g}" for wall in walls]
            table.add_row("", "  with the host's time", *shown)
    return table


def _row(verdict: Verdict) -> list[str]:
    groups: dict[str, list[float]] = {kind: [] for kind in ("output", "gradient", "buffer")}
    for name, error in verdict.errors.items():
        groups[name.partition(" ")[0]].append(error)
    shown = [f"{max(errors):.2f} ({len(errors)})" if errors else "" for errors in groups.values()]
    state = "FAILED" if verdict.wrong else "not compared" if verdict.skipped else "ok"
    return [verdict.dtype, verdict.mode, *shown, verdict.worst, state]


def _dtypes(names: Sequence[str]) -> list[torch.dtype]:
    """Return dtypes by name.

    Raises:
        UserError: if a name is none of a floating-point dtype.
    """
    import torch

    from fusegen.base.dtypes import DTYPES
    from fusegen.tools.bench.cells import one_of

    return [getattr(torch, name) for name in one_of("--dtype", names, DTYPES)]


def _text(report: Report) -> str:
    """Return a report without the lines that graphs of other dtypes and modes have too."""
    return "\n".join(dict.fromkeys(str(report).splitlines()))


def _say(text: str) -> None:
    ERR.print(text, markup=False, soft_wrap=True)
