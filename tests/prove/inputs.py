"""Measures each function of x alone at every number of 16 bits and at many, or all, of float32."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from random_programs.build import build_together
from torch import Tensor

from fusegen import load
from fusegen.toolchain import builder, pipeline
from prove.every_input import FEW, Measured, line, measure
from prove.screen import worth_measuring
from prove.truth import Truth
from prove.ulps import every, interleaved, stratified
from prove.unary import label, of_x_alone, shipped, texts, written

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
#: The value and its derivative.
ORDERS = (0, 1)
#: How many rows a function has.
ROWS = len(DTYPES) * len(ORDERS)
#: How many numbers are measured at once.
CHUNK = {"cpu": 2**20, "cuda": 2**24}


@dataclass(frozen=True)
class Work:
    """One function to measure.

    Args:
        function: what a table calls it.
        spec: its spec.
        packages: the folder of its package.
        count: how many float32 numbers.
        device: "cpu" or "cuda".
        until: the monotonic time after which no other float32 numbers are begun with, and no other function.
        share: after how many seconds no other ones are, of value and derivative each.
    """

    function: str
    spec: Path
    packages: Path
    count: int
    device: str
    until: float
    share: float


def run(
    folder: Path,
    count: int,
    device: str,
    processes: int,
    seconds: float,
    say: Callable[[str], None],
    before: Sequence[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Build the packages, and return what was measured of each.

    Where there is no time for all numbers, each function has an equal share of it; with measures from before,
    one function after the other has all the time that it takes.

    Args:
        folder: where packages are built.
        count: how many float32 numbers are drawn; 2^32 are all.
        device: "cpu" or "cuda".
        processes: how many functions are measured at the same time.
        seconds: after how many it should end, with the numbers that were measured by then.
        say: where to say how far it is.
        before: rows of an earlier run. Functions of which all numbers were measured are not measured again.
    """
    whole = [r for r in before or () if r["dtype"] != "float32" or r["inputs"] >= count]
    kept = {n for n, rows in Counter(r["package"] for r in whole).items() if rows == ROWS}
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")  # a fork cannot use CUDA
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        each: Callable[..., Iterator[Any]] = map if processes == 1 else pool.map
        specs = written(folder / "specs_of_x", order=1)
        specs = [s for s, fits in zip(specs, each(of_x_alone, specs), strict=True) if fits]
        found = [row for row in whole if row["package"] in kept]
        specs = [s for s in specs if s.stem not in kept]
        packages = _build(folder, specs, device)
        spent = time.monotonic() - began
        say(f"{len(specs)} packages after {spent:.0f} s")
        named = {path.stem: path.read_text() for path in shipped()} | texts()
        share = math.inf
        if before is None:
            share = (seconds - spent) * processes / len(specs) / len(ORDERS)
        works = [
            Work(label(s.stem, named[s.stem]), s, packages, count, device, began + seconds, share)
            for s in specs
        ]
        try:
            for rows in each(_attempted, works):
                found += [asdict(row) | {"right": row.right} for row in rows]
                for row in rows:
                    say(line(row))
        except KeyboardInterrupt:
            say("interrupted: functions that are missing were not measured")
    return found


def _attempted(work: Work) -> list[Measured]:
    """Return what was measured of one function; what stops it is said, and stops no other function."""
    try:
        return _measured(work)
    except Exception:
        print(f"{work.function} STOPPED: {traceback.format_exc()}", flush=True)
        if work.device == "cpu":
            raise
        return []


def _measured(work: Work) -> list[Measured]:
    """Return what was measured of one function."""
    chain, package = pipeline.derive(work.spec), load(work.spec.stem, work.packages)
    found = []
    for order in ORDERS:
        truth = Truth(chain, order)
        for dtype in DTYPES:
            row = Measured(work.function, work.spec.stem, str(dtype)[6:], order)
            began = time.monotonic()
            for number, x in enumerate(_numbers(dtype, work)):
                now = time.monotonic()
                if number and (now > work.until or now - began > work.share):
                    break
                few = FEW if work.device == "cpu" else 64 if number < 4 else 0
                count = row.inputs + len(x)
                if number:  # an error is the worst so far
                    x = worth_measuring(row, package, chain, truth, x)
                if len(x):
                    measure(row, package, chain, truth, x, few)
                row.inputs = count
            found.append(row)
    return found


def _numbers(dtype: torch.dtype, work: Work) -> Iterator[Tensor]:
    """Yield the numbers of a dtype that are measured, on their device."""
    chunk = CHUNK[work.device]
    if dtype != torch.float32:
        yield every(dtype).to(work.device)
    elif work.device == "cpu":
        yield from stratified(work.count, seed=0).split(chunk)
    else:
        yield from interleaved(work.count, min(chunk, work.count), work.device)


def _build(folder: Path, specs: Sequence[Path], device: str) -> Path:
    os.environ["FUSEGEN_NATIVE"] = "1"  # for this processor alone
    dtypes = [str(dtype)[6:] for dtype in DTYPES]
    if device == "cuda":
        builder.build(specs, out=folder / "generated", backend="cuda", dtypes=dtypes)
        return folder / "generated"
    given = {spec.stem: spec.read_text() for spec in specs}
    return build_together(folder, given, together=12, optimize="-O3", dtypes=dtypes)
