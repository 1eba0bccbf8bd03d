"""Errors in units of a dtype's last place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: An exponential may be 0 below the smallest normal float32 number (elementary.h). Results that have it as a
#: factor, beside x and a gate's slope, are good to this absolute error alone.
FLUSHED = 1024 * torch.finfo(torch.float32).tiny
#: Where a 16-bit result is good to an absolute error alone: the normal distribution's tail below -5, which is
#: 2.9e-7 there (elementary.py). A longer polynomial would cost every gelu a seventh of its instructions.
NORMAL_TAIL = {"only_gelu_0": 1e-8, "formula_normcdf": 1e-8}
#: How far a result may be from the truth, in ulp.
TARGETS = {torch.bfloat16: 1.0, torch.float16: 1.0, torch.float32: 4.0}


def every(dtype: torch.dtype) -> Tensor:
    """Return all numbers of a 16-bit dtype."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


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


def beyond(
    got: Tensor, truth: Tensor, size: Tensor | None = None, least: float = FLUSHED
) -> Tensor:
    """Return by how many ulp of its dtype each result is wrong, of `size` where that is more than the truth.

    An ulp is the distance to the next number; below the smallest normal one it is the same everywhere.

    Args:
        got: the results.
        truth: the same in float64.
        size: what errors are relative to, by default the truth.
        least: smaller absolute errors are none.
    """
    info = torch.finfo(got.dtype)
    largest = truth.abs() if size is None else torch.maximum(truth.abs(), size)
    ulp = torch.exp2(largest.clamp(min=info.tiny).log2().floor()) * info.eps
    rounded = truth.to(got.dtype)
    same = (got == rounded) | (got.isnan() & rounded.isnan())
    error = (got.double() - truth).abs()
    same |= error < least
    return torch.where(same, 0.0, (error / ulp).nan_to_num(nan=math.inf, posinf=math.inf))
