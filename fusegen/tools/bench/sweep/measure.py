"""Measures random cells: each is checked, timed, and written to the record at once."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.runtime.loading import load_package
from fusegen.toolchain import pipeline
from fusegen.tools.bench import compiling, machine, plain, timing
from fusegen.tools.bench.measure import limit_ms
from fusegen.tools.bench.record import rounded
from fusegen.tools.bench.subjects import Set, Subject
from fusegen.tools.bench.sweep import correct
from fusegen.tools.bench.sweep.build import spec_file
from fusegen.tools.bench.sweep.cases import Case, Draw
from fusegen.tools.bench.sweep.record import RandomCell, RandomRecord, resumed
from fusegen.tools.bench.sweep.tensors import bytes_that_must_move, make_set

#: Where progress is said.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """The settings of a run.

    Args:
        draw: what is drawn.
        device: "cuda" or "cpu".
        out: the folder of the packages.
        compile: whether torch.compile is measured.
        rounds: how often each variant is timed, or None for the default.
        deadline: when no further case is begun, by `time.monotonic`; None for never.
        output: the record's file, or None.
        resume: go on with the existing record.
    """

    draw: Draw
    device: str
    out: Path
    compile: bool = True
    rounds: int | None = None
    deadline: float | None = None
    output: Path | None = None
    resume: bool = False

    @property
    def late(self) -> bool:
        """Whether no further case is begun."""
        return self.deadline is not None and time.monotonic() > self.deadline


class LostDeviceError(Exception):
    """The GPU's context is lost after an illegal access, and with it everything that follows."""


def run(sweep: Sweep, refused: Mapping[str, str], say: Say) -> RandomRecord:
    """Measure; return the record, including the cells that it had before.

    Args:
        sweep: the settings.
        refused: why some packages could not be built, by name.
        say: where progress is said.

    Raises:
        UserError: if the device is wrong, or the record to go on with is of another draw or machine.
    """
    draw = sweep.draw
    record = _record(sweep)
    compiling.set_up()
    clock = timing.clock(sweep.device)
    cases = draw.cases()
    for count, case in enumerate(cases, 1):
        missing = tuple(d for d in case.directions if (case.index, d) not in record.done())
        if not missing:
            continue
        if sweep.late:
            say(f"--seconds are over: {len(cases) + 1 - count} of {len(cases)} cases are left")
            break
        lost = False
        try:
            found = _cells(replace(case, directions=missing), sweep, refused, clock)
        except LostDeviceError as error:
            lost, found = True, _all(replace(case, directions=missing), "failed", str(error))
        record.cells += found
        for cell in found:
            say(f"[{count}/{len(cases)}] {case.title} {cell.direction}: {_short(cell)}")
        if sweep.output is not None:
            record.write(sweep.output)
        if lost:
            say("the GPU is lost to this process; --resume goes on in another one")
            break
        compiling.forget()
    return record


def warm(sweep: Sweep, part: Sequence[Case], say: Say) -> None:
    """Compile what torch.compile needs for some cases, without timing, so that a run finds it in the cache.

    Raises:
        UserError: if the device is wrong.
    """
    machine.describe(sweep.device)
    compiling.set_up(one_thread=True)
    for count, case in enumerate(part, 1):
        if sweep.late:
            say(f"--seconds are over: {len(part) + 1 - count} of {len(part)} cases are left")
            break
        chain = _derived(spec_file(case.spec, sweep.out))
        subject = Subject(
            {"compile": compiling.compiled(plain.tail(chain, _numbers(case)), None)},
            [make_set(case, chain, _generator(case, sweep.device))],
        )
        problem = ""
        for direction in case.directions:
            with torch.set_grad_enabled(direction != "forward"):
                problem = _problem(subject.calls(direction, compiled_alone=True)["compile"])
        compiling.forget()
        say(f"[{count}/{len(part)}] {case.title}: {problem or 'compiled'}")


def _record(sweep: Sweep) -> RandomRecord:
    draw = sweep.draw
    settings = {
        "cells": draw.cells,
        "megabytes": list(draw.megabytes),
        "dtypes": list(draw.dtypes),
        "directions": list(draw.directions),
    }
    texts = {spec.name: spec.text for spec in draw.specs()}
    new = RandomRecord(machine.describe(sweep.device), draw.seed, settings, texts)
    return resumed(sweep.output, new) if sweep.resume and sweep.output is not None else new


def _cells(
    case: Case, sweep: Sweep, refused: Mapping[str, str], clock: timing.Clock
) -> list[RandomCell]:
    if case.spec.name in refused:
        return _all(case, "failed", f"not built: {refused[case.spec.name]}")
    try:
        chain = _derived(spec_file(case.spec, sweep.out))
        package = load_package(case.spec.name, sweep.out)
        return _measured(case, sweep, chain, package, clock)
    except Exception as error:  # whatever it is, it is of this case alone
        if "CUDA error" in str(error):
            raise LostDeviceError(compiling.first_line(error)) from error
        return _all(case, "failed", f"{type(error).__name__}: {compiling.first_line(error)}")


def _measured(
    case: Case, sweep: Sweep, chain: Chain, package: Any, clock: timing.Clock
) -> list[RandomCell]:
    numbers = _numbers(case)
    options: dict[str, Any] = {**numbers, **({"training": True} if chain.moded else {})}

    def ours(x: Tensor, *operands: Tensor) -> Tensor:
        result: Tensor = package.apply(x, *operands, **options)
        return result

    eager = plain.tail(chain, numbers)
    generator = _generator(case, sweep.device)
    tensors = make_set(case, chain, generator)
    backward = "backward" in case.directions
    notes = []
    by_torch: correct.Function | None = eager
    try:
        correct.results(eager, tensors, backward=backward)
    except RuntimeError as error:
        notes.append(f"eager: {compiling.first_line(error)}")
        by_torch = None
    message = correct.wrong(chain, tensors, numbers, ours, by_torch, backward=backward)
    if message is not None:
        return _all(case, "wrong", message)
    functions: dict[str, Any] = {"fusegen": ours}
    if by_torch is not None:
        functions["eager"] = by_torch
    if sweep.compile:
        functions["compile"] = compiling.compiled(eager, None)
    count = timing.sets_beyond_caches(sweep.device, tensors.bytes_moved("backward"))
    sets = [tensors, *(make_set(case, chain, generator) for _ in range(count - 1))]
    subject = Subject(functions, sets)
    return [
        _timed(case, direction, chain, subject, sets, clock, sweep.rounds, notes)
        for direction in case.directions
    ]


def _timed(
    case: Case,
    direction: str,
    chain: Chain,
    subject: Subject,
    sets: Sequence[Set],
    clock: timing.Clock,
    rounds: int | None,
    notes: Sequence[str],
) -> RandomCell:
    notes = list(notes)
    with torch.set_grad_enabled(direction != "forward"):
        calls = subject.calls(direction)
        calls["copy"] = _copies(sets)
        if "compile" in calls and (problem := _problem(calls["compile"])):
            notes.append(f"compile: {problem}")
            del calls["compile"]
        times = {label: rounded(ms) for label, ms in timing.medians(calls, clock, rounds).items()}
    moved = bytes_that_must_move(chain, sets[0], direction)
    (cell,) = _all(replace(case, directions=(direction,)), "timed", "; ".join(notes))
    return replace(
        cell,
        limit_bytes=moved,
        limit_ms=rounded(limit_ms(moved, cell.tensor_bytes, times["copy"])),
        fusegen_ms=times["fusegen"],
        eager_ms=times.get("eager"),
        compile_ms=times.get("compile"),
        copy_ms=times["copy"],
    )


def _copies(sets: Sequence[Set]) -> timing.Prepare:
    """Return copies of dense tensors as large as x, whatever the strides of x are."""
    sources = itertools.cycle([torch.randn_like(s.out) for s in sets])
    targets = itertools.cycle([s.out for s in sets])

    def prepare() -> Callable[[], object]:
        source, target = next(sources), next(targets)
        return lambda: target.copy_(source)

    return prepare


def _problem(prepare: timing.Prepare) -> str:
    """Call a variant; return why it fails, or nothing."""
    try:
        prepare()()
    except Exception as error:  # torch.compile fails in many ways
        if "CUDA error" in str(error):
            raise LostDeviceError(compiling.first_line(error)) from error
        return f"{type(error).__name__}: {compiling.first_line(error)}"
    return ""


def _all(case: Case, state: Any, note: str) -> list[RandomCell]:
    """Return the cells of a case without times."""
    size = torch.empty(case.shape, dtype=getattr(torch, case.dtype), device="meta").nbytes
    return [
        RandomCell(
            case=case.index,
            spec=case.spec.name,
            form=case.spec.form,
            steps=case.spec.steps,
            shape=case.shape,
            dtype=case.dtype,
            memory_format=str(case.format),
            broadcast=case.ones,
            groups=case.groups,
            direction=direction,
            tensor_bytes=size,
            state=state,
            note=note,
        )
        for direction in case.directions
    ]


def _numbers(case: Case) -> dict[str, Any]:
    return {} if case.groups is None else {"groups": case.groups}


def _generator(case: Case, device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(case.index)


@functools.lru_cache(maxsize=64)
def _derived(path: Path) -> Chain:
    return pipeline.derive(path)


def _short(cell: RandomCell) -> str:
    if cell.fusegen_ms is None:
        return f"{cell.state}: {cell.note}"
    beside = "" if cell.over_best is None else f", {cell.over_best:.2f} x the best of torch"
    note = f"; {cell.note}" if cell.note else ""
    return f"{cell.over_limit or 0:.2f} x the limit of {cell.limit_ms:.4g} ms{beside}{note}"
