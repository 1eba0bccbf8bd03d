"""Timing: every variant in turn, on data that is not in a cache; the median of the rounds."""

from __future__ import annotations

import functools
import random
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

#: Prepares a call, which is not timed, and returns it.
Prepare = Callable[[], Callable[[], object]]

#: Calls of a variant that are not timed: the first compiles, the other warms up.
WARM_CALLS = 2
#: The number of rounds if the shortest variant takes at least `SHORT_MS`; else the clock decides.
ROUNDS = 21
SHORT_MS = 0.1

_FLUSHED_BYTES = 256 << 20  # several times the L2 of any GPU
_TRIES = 8  # of a call for which the host was late
_WALL_ROUNDS, _WALL_CALLS = 7, 10
_FEWEST = 3  # rounds, whatever the time


class Deadline:
    """When to begin nothing more.

    Args:
        seconds: from now on; without them there is no end.

    Attributes:
        left: what was left out since then, in words.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        self.left: list[str] = []
        self._end = float("inf") if seconds is None else time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def leaves(self, what: str) -> bool:
        """Return whether the time is up, and if it is, note what is left out for that."""
        if self.over:
            self.left.append(what)
        return self.over

    def __str__(self) -> str:
        return f"left out after {self.seconds:g} s, which --seconds sets: {'; '.join(self.left)}"


class Clock(Protocol):
    """Times one call.

    Attributes:
        short_rounds: the rounds that short calls need for a median that is stable from run to run.
    """

    short_rounds: int

    def __call__(self, call: Callable[[], object]) -> float | None:
        """Return the milliseconds of a call, or None if the time includes something else."""


class HostClock:
    """Times a call on the CPU. Its result is freed after the clock stops."""

    short_rounds = 401

    def __call__(self, call: Callable[[], object]) -> float:
        """Return the milliseconds of a call."""
        started = time.perf_counter()
        result = call()
        elapsed = time.perf_counter() - started
        del result
        return elapsed * 1e3


class CudaClock:
    """Times the GPU's work for a call, without the host that queues it.

    The GPU waits while the host queues the call, and first overwrites its L2 cache. If the GPU is done before
    the host, the time is not counted, and the wait before the next call doubles. While the host is in time,
    the wait becomes a little shorter with each call.
    """

    short_rounds = 41

    def __init__(self) -> None:
        self._buffer = torch.empty(_FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
        self._hold: Any = torch.cuda._sleep
        self._least, self._most = 1_000_000, 64_000_000  # half a millisecond; about thirty
        self._cycles = self._least

    def __call__(self, call: Callable[[], object]) -> float | None:
        """Return the milliseconds of a call, or None if the host was late."""
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
    variants: Mapping[str, Prepare],
    clock: Clock,
    rounds: int | None = None,
    deadline: Deadline | None = None,
    title: str = "",
) -> dict[str, float]:
    """Return the median milliseconds of each variant.

    Each round has a random order: a call after a similar one finds more of torch in the caches (10 of 60 µs
    of a small backward).

    Args:
        variants: a function for each variant that prepares its call.
        clock: times a call.
        rounds: how often each is timed; the default depends on the shortest.
        deadline: begins no round after it, but for the first three.
        title: what is timed, for what the deadline leaves out.
    """
    shortest = float("inf")
    for prepare in variants.values():
        for _ in range(WARM_CALLS):
            prepare()()
        shortest = min(shortest, _timed(prepare(), prepare, clock))
    count = rounds or (clock.short_rounds if shortest < SHORT_MS else ROUNDS)
    times: dict[str, list[float]] = {label: [] for label in variants}
    turn, shuffle = list(variants), random.Random(0).shuffle
    for done in range(count):
        if (
            deadline
            and done >= _FEWEST
            and deadline.leaves(f"{title}, {count - done} of {count} rounds")
        ):
            break
        shuffle(turn)
        # All calls are prepared before the first is timed, so that the others evict the data of each from the
        # cache.
        calls = {label: variants[label]() for label in turn}
        for label in turn:
            times[label].append(_timed(calls.pop(label), variants[label], clock))
    return {label: statistics.median(taken) for label, taken in times.items()}


def walls(variants: Mapping[str, Prepare]) -> dict[str, float]:
    """Return the milliseconds of each variant on CUDA when its calls follow one another: medians of rounds.

    The GPU does not wait for the host to queue a call, as it does for `CudaClock`: this is the longer of the
    two's times. Each variant is called on the same inputs.
    """
    calls = {label: prepare() for label, prepare in variants.items()}
    times: dict[str, list[float]] = {label: [] for label in variants}
    for _ in range(_WALL_ROUNDS):
        for label, call in calls.items():
            call()
            torch.cuda.synchronize()
            started = time.perf_counter()
            for _ in range(_WALL_CALLS):
                call()
            torch.cuda.synchronize()
            times[label].append((time.perf_counter() - started) * 1e3 / _WALL_CALLS)
    return {label: statistics.median(taken) for label, taken in times.items()}


def _timed(call: Callable[[], object], prepare: Prepare, clock: Clock) -> float:
    for _ in range(_TRIES):
        taken = clock(call)
        if taken is not None:
            return taken
        call = prepare()
    raise RuntimeError("the host is slower than the GPU waits for it; is the machine busy?")


def sets_beyond_caches(device: str, set_bytes: int) -> int:
    """Return how many sets of operands to use in turn, so that no call finds its set in a cache.

    A GPU's cache is flushed, so one set is enough. Tiny tensors stay in the CPU's cache anyway: their times
    are those of the call, not of memory.
    """
    if device == "cuda":
        return 1
    return max(2, min(128, -(-2 * _cache_bytes() // max(set_bytes, 1))))


def _cache_bytes() -> int:
    """Return the size of the CPU's last-level cache, or 64 MiB if it cannot be read."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) << 10)
    return max(sizes, default=64 << 20)
