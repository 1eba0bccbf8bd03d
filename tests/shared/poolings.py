"""Poolings with random windows."""

from __future__ import annotations

import random
from typing import Any

from torch import nn

from fusegen.runtime import windows

POOLS = [*windows._MAX, *windows._MEAN]


def drawn(pool: type[nn.Module], seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a pooling with random windows, and the shape of an input."""
    rng = random.Random(f"{pool.__name__} {seed}")
    n = int(pool.__name__[-2])
    size = [rng.randint(1, 4) for _ in range(n)]
    given: dict[str, Any] = {
        "kernel_size": tuple(size),
        "stride": tuple(rng.randint(1, 4) for _ in range(n)),
        "padding": tuple(rng.randint(0, k // 2) for k in size),
        "ceil_mode": rng.random() < 0.5,
    }
    dilation = (1,) * n
    if pool in windows._MAX:
        dilation = given["dilation"] = tuple(rng.choice((1, 1, 2)) for _ in range(n))
    else:
        given["count_include_pad"] = rng.random() < 0.5
    least = [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]
    places = [k + rng.randint(0, 9) for k in least]
    return pool(**given), (rng.randint(1, 3), rng.choice((1, 3, 8, 16)), *places)
