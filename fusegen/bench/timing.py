"""How calls are timed: interleaved, on data that is not in the caches, as medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

#: Bytes written between two timed calls on the GPU: more than its second-level cache holds.
_FLUSH = 256 * 2**20
#: Cycles that the GPU then waits, about a millisecond, in which the host queues the whole call: what is
#: measured is the device's time, without Python's.
_HEAD_START = 2_000_000


class Clock:
    """Times calls on one device."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            self._flushed = torch.empty(_FLUSH // 4, device=device, dtype=torch.int32)

    def __call__(self, function: Callable[[], object]) -> float:
        """Return the milliseconds of one call."""
        if self.device == "cpu":
            started = time.perf_counter()
            function()
            return (time.perf_counter() - started) * 1e3
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        self._flushed.zero_()
        torch.cuda._sleep(_HEAD_START)  # type: ignore[no-untyped-call]
        begin.record()
        function()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))


def medians(
    variants: Mapping[str, Callable[[int], Callable[[], object]]], clock: Clock, rounds: int
) -> dict[str, float]:
    """Return the median time of each variant, in milliseconds.

    Args:
        variants: for each a function that prepares the n-th call, untimed, and returns the call.
        clock: times the calls.
        rounds: of all variants in turn, after two that are not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 2):
        for name, prepare in variants.items():
            taken = clock(prepare(turn))
            if turn >= 2:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}
