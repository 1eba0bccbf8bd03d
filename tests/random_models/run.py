"""Holds the random models of many seeds, some in each process."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from random_models.hold import Outcome, hold

#: How many models share libraries.
TOGETHER = 8


def run(
    seeds: Sequence[int], processes: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return what became of the models of some seeds.

    Args:
        seeds: the seeds.
        processes: how many processes hold models.
        seconds: after how many no other models begin.
        say: where to say how far it is.
    """
    outcome, ends = Outcome(), time.time() + seconds
    parts = [seeds[start : start + TOGETHER] for start in range(0, len(seeds), TOGETHER)]
    context = multiprocessing.get_context("spawn")
    # A process for each part: torch.compile keeps what it has captured, and a package may end the process.
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool:
        for part, done in [(part, pool.submit(_part, part, ends)) for part in parts]:
            try:
                outcome.add(done.result())
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"a process of the models {list(part)} or after ended"
                ) from error
            say(f"{outcome.models + outcome.left} of {len(seeds)}: {len(outcome.wrong)} wrong")
            for seed in sorted(set(part) & outcome.wrong.keys()):
                say(f"seed {seed}: {outcome.wrong[seed]}")
    return {"seed": seeds[0], "count": len(seeds), **vars(outcome)}


def _part(seeds: Sequence[int], ends: float) -> Outcome:
    """Return what became of some models, in a process of its own."""
    if time.time() > ends:
        return Outcome()
    torch.set_num_threads(1)
    os.environ["FUSEGEN_NATIVE"] = "1"
    with tempfile.TemporaryDirectory(prefix="models_") as folder:
        return hold(seeds, Path(folder))
