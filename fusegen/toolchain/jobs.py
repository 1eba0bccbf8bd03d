"""How many processes run at once: compilers, and workers that derive packages."""

from __future__ import annotations

import os

from fusegen.base.errors import UserError

#: What a compiler takes at most, and what a worker does (80 MB for those of specs/), in bytes.
COMPILER = 2 * 2**30
WORKER = 300 * 10**6


def jobs(requested: int | None, memory: int = COMPILER) -> int:
    """Return how many processes run at once: as many as asked for, else MAX_JOBS, else what fits.

    Args:
        requested: what `--jobs` says, if anything.
        memory: the bytes that a process takes.

    Raises:
        UserError: where the number asked for is none.
    """
    if requested is not None:
        if requested < 1:
            raise UserError(f"--jobs {requested}: expected at least 1")
        return requested
    if limit := os.environ.get("MAX_JOBS"):
        if not (limit.isascii() and limit.isdigit() and int(limit) >= 1):
            raise UserError(f"MAX_JOBS={limit}: expected a whole number of at least 1")
        return int(limit)
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return max(1, min(cores(), free // memory))


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
