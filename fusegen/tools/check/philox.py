"""The kernels' random numbers, computed in Python."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor


# A comparison draws the same numbers twice, which would take as long as the rest.
@functools.lru_cache(maxsize=2)
def uniform(seed: int, stream: int, shape: torch.Size | tuple[int, ...]) -> Tensor:
    """Return the kernels' uniform numbers in [0, 1), as float64: Philox4x32-7 in integer arithmetic. The
    tensor is cached; do not change it.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the same as
    templates/include/fusegen/random.h.
    """
    mask = 0xFFFFFFFF
    count = math.prod(shape)
    group = torch.arange((count + 7) // 8, dtype=torch.int64)
    c = [group & mask, group >> 32, torch.full_like(group, stream), torch.zeros_like(group)]
    k = [seed & mask, (seed >> 32) & mask]

    def product(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
        # 32 x 32 -> 64 bits by 16-bit halves, since int64 has no unsigned product.
        low, high = constant * (word & 0xFFFF), constant * (word >> 16)
        carried = (low >> 16) + (high & mask)
        return ((high >> 32) << 16) + (carried >> 16) & mask, ((carried & 0xFFFF) << 16) | (
            low & 0xFFFF
        )

    for _ in range(7):
        high0, low0 = product(0xD2511F53, c[0])
        high1, low1 = product(0xCD9E8D57, c[2])
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    halves = torch.stack([half for word in c for half in (word & 0xFFFF, word >> 16)], dim=1)
    return (halves.reshape(-1)[:count].double() * 2.0**-16).reshape(shape)
