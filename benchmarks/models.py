"""Whole models: fusegen's `Module` beside the same model in plain torch, in eager and under torch.compile.

python benchmarks/models.py build   FOLDER [NAME …]
python benchmarks/models.py warm    FOLDER [--shard i/n] [NAME …]
python benchmarks/models.py measure FOLDER --output RECORD.json [--resume] [NAME …]
python benchmarks/models.py table   RECORD.json

`models.yaml` lists the models. Each is in training, on random float32 data, with TF32, and has two cells: a
forward pass without gradients, and a forward and a backward pass that gives the gradients of all inputs and
parameters. The three have the same parameters and run in turns in one process; times are medians of the
GPU's time. Results are compared first, and a model whose results are wrong is not timed. `models.sh` calls
all of this.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from plain_models import DEVICE, Model, listed, subjects, tf32, wrong

import fusegen
from fusegen.base.files import write_if_different
from fusegen.toolchain import builder
from fusegen.tools.bench import compiling, machine, timing
from fusegen.tools.bench.record import rounded
from fusegen.tools.bench.summary import geometric_mean

DIRECTIONS = ("forward", "forward+backward")
SUBJECTS = ("fusegen", "eager", "compile")


def measured(
    model: Model, folder: Path, memory_format: str, rounds: int | None, clock: timing.Clock
) -> list[dict[str, Any]]:
    """Return a model's cells."""
    about = {
        "spec": model.name,
        "steps": model.steps,
        "shape": list(model.shapes[0]),
        "dtype": "tf32",
        "memory_format": "contiguous",
        "convolution": memory_format,
    }
    try:
        found = subjects(model, folder)
        problem = wrong(found)
        state = "wrong" if problem else "timed"
    except Exception as error:  # whatever it is, the other models go on
        state, problem = "failed", f"{type(error).__name__}: {compiling.first_line(error)}"
        if "CUDA error" in problem:
            raise  # nothing works in this process any more
    cells = []
    for direction in DIRECTIONS:
        cell = {**about, "direction": direction, "state": state}
        if state == "timed":
            with torch.set_grad_enabled(direction != "forward"):
                calls = {
                    name: functools.partial(found.prepared, name, direction) for name in found.calls
                }
                calls = compiling.without_refused(calls, model.name, print)
                times = timing.medians(calls, clock, rounds)
            cell |= {f"{name}_ms": rounded(times[name]) for name in SUBJECTS if name in times}
        else:
            cell["note"] = problem
        cells.append(cell)
    return cells


def measure(models: Sequence[Model], args: argparse.Namespace) -> None:
    """Measure the models and write the record after each."""
    record: dict[str, Any] = {"machine": machine.describe(DEVICE), "cells": []}
    if args.resume and args.output.exists():
        record = json.loads(args.output.read_text())
    done = {cell["spec"] for cell in record["cells"]}
    compiling.set_up()
    clock = timing.clock(DEVICE)
    for model in models:
        if model.name in done:
            continue
        found = measured(model, args.folder, args.memory_format, args.rounds, clock)
        record["cells"] += found
        compiling.forget()
        cells = ",\n".join(json.dumps(cell) for cell in record["cells"])
        text = (
            f'{{"machine": {json.dumps(record["machine"], indent=1)},\n"cells": [\n{cells}\n]}}\n'
        )
        write_if_different(args.output, text)
        for cell in found:
            print(_row(cell), flush=True)


def warm(models: Sequence[Model], folder: Path, part: str) -> None:
    """Compile torch.compile's variants of every n-th model from the i-th on, for "i/n"."""
    first, count = map(int, part.split("/"))
    compiling.set_up(one_thread=True)
    for model in models[first - 1 :: count]:
        found = subjects(model, folder, fused=False)
        for direction in DIRECTIONS:
            with torch.set_grad_enabled(direction != "forward"):
                found.prepared("compile", direction)()
        compiling.forget()
        print(f"{model.name}: compiled", flush=True)


def _gain(cell: Mapping[str, Any], other: str) -> float | None:
    times = cell.get(f"{other}_ms"), cell.get("fusegen_ms")
    return times[0] / times[1] if times[0] and times[1] else None


def _row(cell: Mapping[str, Any]) -> str:
    shape = "x".join(map(str, cell["shape"]))
    start = f"| {cell['spec']} | {shape} | {cell['direction']} |"
    if cell["state"] != "timed":
        return f"{start} {cell['state']}: {cell['note']} | | | | |"
    times = [cell.get(f"{name}_ms") for name in SUBJECTS]
    gains = [_gain(cell, name) for name in ("eager", "compile")]
    shown = ["" if n is None else f"{n:.3f}" for n in times]
    shown += ["" if n is None else f"{n:.2f}" for n in gains]
    return f"{start} {' | '.join(shown)} |"


def _mean(gains: Sequence[float]) -> str:
    behind = sum(gain < 0.97 for gain in gains)
    return f"{geometric_mean(gains):.3f} (worst {min(gains):.2f}, {behind} under 0.97)"


def table(record: Mapping[str, Any]) -> str:
    """Return the record as a table, the worst first in each direction, and the means."""
    about = record["machine"]
    lines = [
        f"{about['chip']}, driver {about['driver']}, torch {about['torch']}, commit {about['commit']}",
        "",
        "| model | x | direction | fusegen ms | eager ms | compile ms | over eager | over compile |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    means = []
    for direction in DIRECTIONS:
        cells = [cell for cell in record["cells"] if cell["direction"] == direction]
        lines += map(_row, sorted(cells, key=lambda cell: _gain(cell, "compile") or 0.0))
        gains = {
            name: [gain for cell in cells if (gain := _gain(cell, name)) is not None]
            for name in ("eager", "compile")
        }
        lost = sum(cell["state"] != "timed" for cell in cells)
        words = [f"{_mean(found)} of {name}'s speed" for name, found in gains.items() if found]
        means.append(
            f"{direction}: {', '.join(words)}; {len(cells)} models, {lost} wrong or failed"
        )
    return "\n".join([*lines, "", *means])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("build", "warm", "measure", "table"))
    parser.add_argument("folder", type=Path, help="of the packages; for table: the record")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--shard", default="1/1")
    parser.add_argument("--output", type=Path, default=Path("models.json"))
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--memory-format",
        default="auto",
        choices=("auto", "channels_last", "preserve"),
        help="in which fusegen's convolutions run",
    )
    parser.add_argument("--batch", type=int, help="another batch, for a try without a GPU")
    args = parser.parse_intermixed_args()
    if args.command == "table":
        print(table(json.loads(args.folder.read_text())))
        return
    models = listed(args.names, args.batch)
    fusegen.set_memory_format(args.memory_format)
    if args.command == "build":
        backend = "cuda" if DEVICE == "cuda" else "cpu"
        builder.build(
            [model.file(args.folder) for model in models], out=args.folder, backend=backend
        )
    with tf32(allowed=True):
        if args.command == "warm":
            warm(models, args.folder, args.shard)
        if args.command == "measure":
            measure(models, args)


if __name__ == "__main__":
    main()
