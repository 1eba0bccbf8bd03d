"""The inputs of a dtype, and how far results may be from the truth there."""

from __future__ import annotations

import torch
from torch import Tensor

from fusegen.tools.check.every_number import FLUSHED, beyond, every

__all__ = ["FLUSHED", "NORMAL_TAIL", "TARGETS", "beyond", "every", "stratified"]

#: Where a 16-bit result is good to an absolute error alone: the normal distribution's tail below -5, which is
#: 2.9e-7 there (elementary.py). A longer polynomial would cost every gelu a seventh of its instructions.
NORMAL_TAIL = {"only_gelu_0": 1e-8, "formula_normcdf": 1e-8}
#: How far a result may be from the truth, in ulp.
TARGETS = {torch.bfloat16: 1.0, torch.float16: 1.0, torch.float32: 4.0}


def stratified(count: int, seed: int) -> Tensor:
    """Return float32 numbers, sorted by their bits: one from each of `count` strata of equal size.

    Half of the strata divide all bit patterns, the others those of numbers from 2^-14 to 2^7 of both signs,
    where functions curve.
    """
    generator = torch.Generator().manual_seed(seed)
    first, last = (127 - 14) << 23, (127 + 7) << 23
    parts = [_strata(0, 2**32, count // 2, generator)]
    for sign in (0, 2**31):
        parts.append(_strata(sign + first, sign + last, count // 4, generator))
    bits = torch.cat(parts)
    return torch.where(bits < 2**31, bits, bits - 2**32).to(torch.int32).view(torch.float32)


def _strata(first: int, last: int, count: int, generator: torch.Generator) -> Tensor:
    edges = first + torch.arange(count + 1, dtype=torch.int64) * (last - first) // count
    inside = torch.rand(count, dtype=torch.float64, generator=generator) * edges.diff()
    return edges[:-1] + inside.long()
