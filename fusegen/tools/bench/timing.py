"""How it is timed: every variant in turn, on data that comes from memory; the median of the rounds."""

from __future__ import annotations

import functools
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

#: Makes a call ready, outside of what is timed, and returns it.
Prepare = Callable[[], Callable[[], object]]

#: Calls of a variant that are not timed: the first compiles, the other warms up.
WARM_CALLS = 2
#: Rounds where the shortest variant takes at least `SHORT_MS`; else as many as the clock says.
ROUNDS = 21
SHORT_MS = 0.1

_FLUSHED_BYTES = 256 << 20  # several times the L2 of any GPU
_TRIES = 8  # of a call for which the host was late


class Clock(Protocol):
    """Times one call.

    Attributes:
        short_rounds: how many rounds make a median of short calls that stays from run to run.
    """

    short_rounds: int

    def __call__(self, call: Callable[[], object]) -> float | None:
        """Return the milliseconds of a call, or None where the time is not the call's alone."""


class HostClock:
    """Times a call on the CPU. What it returns is freed after the time is taken."""

    short_rounds = 401

    def __call__(self, call: Callable[[], object]) -> float:
        """Return the milliseconds of a call."""
        started = time.perf_counter()
        result = call()
        elapsed = time.perf_counter() - started
        del result
        return elapsed * 1e3


class CudaClock:
    """Times what a call does on the GPU, not the host that queues it.

    The GPU is held back while the host queues the call, and writes a buffer over its L2 cache first. If it
    was done with that before the host was, the time is not counted and the next call is held longer; while
    the host is in time, calls are held a little less each.
    """

    short_rounds = 41

    def __init__(self) -> None:
        self._buffer = torch.empty(_FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
        self._hold: Any = torch.cuda._sleep
        self._least, self._most = 1_000_000, 64_000_000  # half a millisecond; about thirty
        self._cycles = self._least

    def __call__(self, call: Callable[[], object]) -> float | None:
        """Return the milliseconds of a call, or None where the host was late."""
        new: Any = functools.partial(torch.cuda.Event, enable_timing=True)
        begin, end = new(), new()
        self._hold(self._cycles)
        self._buffer.zero_()
        begin.record()
        result = call()
        end.record()
        late = begin.query()
        end.synchronize()
        del result
        if late and self._cycles < self._most:
            self._cycles = min(2 * self._cycles, self._most)
            return None
        self._cycles = max(int(0.98 * self._cycles), self._least)
        return float(begin.elapsed_time(end))


def clock(device: str) -> Clock:
    """Return the clock of a device."""
    return CudaClock() if device == "cuda" else HostClock()


def medians(
    variants: Mapping[str, Prepare], clock: Clock, rounds: int | None = None
) -> dict[str, float]:
    """Return the median milliseconds of each variant.

    Each round has an order of its own: a call finds more of torch in the caches after one like it (10 of
    60 µs of a small backward).

    Args:
        variants: what makes a call of each ready.
        clock: times a call.
        rounds: how often each is timed; by default as often as its shortest needs.
    """
    shortest = float("inf")
    for prepare in variants.values():
        for _ in range(WARM_CALLS):
            prepare()()
        shortest = min(shortest, _timed(prepare(), prepare, clock))
    count = rounds or (clock.short_rounds if shortest < SHORT_MS else ROUNDS)
    times: dict[str, list[float]] = {label: [] for label in variants}
    turn, shuffle = list(variants), random.Random(0).shuffle
    for _ in range(count):
        shuffle(turn)
        # All are made ready before the first is timed: what one has touched, the others push from the cache.
        calls = {label: variants[label]() for label in turn}
        for label in turn:
            times[label].append(_timed(calls.pop(label), variants[label], clock))
    return {label: statistics.median(taken) for label, taken in times.items()}


def _timed(call: Callable[[], object], prepare: Prepare, clock: Clock) -> float:
    for _ in range(_TRIES):
        taken = clock(call)
        if taken is not None:
            return taken
        call = prepare()
    raise RuntimeError("the host is slower than the GPU waits for it; is the machine busy?")


def sets_beyond_caches(device: str, set_bytes: int) -> int:
    """Return how many sets of operands to use in turn, so that no call finds its own in a cache.

    A GPU's cache is flushed, so one set will do. Tiny tensors stay cached all the same: of them
    one measures the call, not the memory.
    """
    if device == "cuda":
        return 1
    return max(2, min(128, -(-2 * _cache_bytes() // max(set_bytes, 1))))


def _cache_bytes() -> int:
    """Return the size of the CPU's last cache, 64 MiB where it cannot be read."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) << 10)
    return max(sizes, default=64 << 20)
