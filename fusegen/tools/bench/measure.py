"""A run: measures group after group, and writes each to the record at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fusegen.base.errors import UserError
from fusegen.tools.bench import compiling, machine, subjects, timing
from fusegen.tools.bench.cells import Group
from fusegen.tools.bench.record import Cell, Direction, Record, resumed, rounded
from fusegen.tools.bench.subjects import Choice, Subject


@dataclass(frozen=True)
class Run:
    """The settings of a run.

    Args:
        groups: what is measured.
        choice: on which device, with which variants.
        directions: "forward", "backward" or both.
        rounds: how often each variant is timed, or None for the default.
        output: the record's file, or None.
        resume: go on with the existing record.
        deadline: begins no group after it but the first.
    """

    groups: Sequence[Group]
    choice: Choice
    directions: Sequence[str]
    rounds: int | None = None
    output: Path | None = None
    resume: bool = False
    deadline: timing.Deadline = field(default_factory=timing.Deadline)


def run(wanted: Run, say: Callable[[str], None]) -> Record:
    """Measure; return the record, including the cells that it had before.

    Raises:
        UserError: if a spec or the device is wrong, a package is not built, or the record to go on with is
            from another machine.
    """
    here = machine.describe(wanted.choice.device)
    record = Record(here)
    if wanted.resume and wanted.output is not None:
        record = resumed(wanted.output, here)
    compiling.set_up()
    clock = timing.clock(wanted.choice.device)
    for count, group in enumerate(wanted.groups, 1):
        missing = [d for d in group.directions(wanted.directions) if not record.has(group.key(d))]
        if count > 1 and missing and wanted.deadline.leaves(group.title):
            continue
        for cell in _cells(group, wanted, missing, clock, say):
            record.cells.append(cell)
            place = f"[{count}/{len(wanted.groups)}] {group.title}"
            say(f"{place} {cell.direction}: {_short(cell)}")
        compiling.forget()
        if missing and wanted.output is not None:
            record.write(wanted.output)
    return record


def warm(wanted: Run, say: Callable[[str], None]) -> None:
    """Compile everything that a run would, without timing, so the run finds it in the cache.

    Raises:
        UserError: as `run`.
    """
    machine.describe(wanted.choice.device)
    compiling.set_up(one_thread=True)
    for count, group in enumerate(wanted.groups, 1):
        _compile(group, wanted, say)
        compiling.forget()
        say(f"[{count}/{len(wanted.groups)}] {group.title}: compiled")


def _compile(group: Group, wanted: Run, say: Callable[[str], None]) -> None:
    with _precision(group):
        subject = _subject(group, wanted.choice, compiled_alone=True)
        for direction in group.directions(wanted.directions):
            with torch.set_grad_enabled(direction != "forward"):
                calls = subject.calls(direction, compiled_alone=True)
                compiling.without_refused(calls, group.title, say)


def _cells(
    group: Group,
    wanted: Run,
    directions: Sequence[Direction],
    clock: timing.Clock,
    say: Callable[[str], None],
) -> list[Cell]:
    if not directions:
        return []
    with _precision(group):
        subject = _subject(group, wanted.choice)
        return [_measured(group, subject, d, clock, wanted, say) for d in directions]


@contextlib.contextmanager
def _precision(group: Group) -> Iterator[None]:
    """Set the precision of matmuls for the group's dtype."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if group.dtype == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _subject(group: Group, choice: Choice, *, compiled_alone: bool = False) -> Subject:
    try:
        return subjects.subject(group, choice, compiled_alone=compiled_alone)
    except ImportError as error:  # not built, or not loadable; the message says which
        raise UserError(str(error)) from error


def _measured(
    group: Group,
    subject: Subject,
    direction: Direction,
    clock: timing.Clock,
    wanted: Run,
    say: Callable[[str], None],
) -> Cell:
    with torch.set_grad_enabled(direction != "forward"):
        calls = compiling.without_refused(subject.calls(direction), group.title, say)
        title = f"{group.title} {direction}"
        times = timing.medians(calls, clock, wanted.rounds, wanted.deadline, title)
    times = {label: rounded(taken) for label, taken in times.items()}
    moved = subject.example.bytes_moved(direction)
    activation = subject.example.out.nbytes
    linear = times.get("linear")
    at_copy_rate = rounded(limit_ms(moved, activation, times["copy"]))
    return Cell(
        kind=group.kind,
        spec=group.name,
        dtype=group.dtype,
        rows=group.rows,
        cols=group.cols,
        in_features=group.in_features,
        direction=direction,
        tensor_bytes=activation,
        fusegen_ms=times["fusegen"],
        eager_ms=times["eager"],
        compile_ms=times.get("compile"),
        compile_max_autotune_ms=times.get("compile_max_autotune"),
        copy_ms=times["copy"],
        limit_ms=at_copy_rate if linear is None else linear,
        linear_ms=linear,
        trailing=group.trailing,
    )


def limit_ms(moved: int, tensor_bytes: int, copy_ms: float) -> float:
    """Return the time to move some bytes at the rate of a copy, which moves a tensor twice."""
    return copy_ms * moved / (2 * tensor_bytes)


def _short(cell: Cell) -> str:
    names: dict[str, float | None] = {
        "fusegen": cell.fusegen_ms,
        "eager": cell.eager_ms,
        "compile": cell.compile_ms,
    }
    times = [f"{k} {v / cell.limit_ms:.2f}" for k, v in names.items() if v is not None]
    return f"{', '.join(times)} x {cell.limit_ms:.4g} ms"
