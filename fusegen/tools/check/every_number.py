"""Errors in units of a dtype's last place, and every number of a 16-bit dtype."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["FLUSHED", "beyond", "bounded", "every", "sizes", "ulps"]

#: An exponential may be 0 below the smallest normal float32 number (elementary.h). Results that have it as a
#: factor, beside x and a gate's slope, are good to this absolute error alone.
FLUSHED = 1024 * torch.finfo(torch.float32).tiny


def every(dtype: torch.dtype) -> Tensor:
    """Return all numbers of a 16-bit dtype."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


def bounded(got: Tensor, truth: Tensor) -> Tensor:
    """Return results in float64, where an infinity is the number behind the dtype's largest.

    What is wrong by some ulp may be infinite where the truth is not, within a factor of two of the largest.
    """
    info = torch.finfo(got.dtype)
    behind = info.max / (1 - info.eps / 2)
    return torch.where(truth.abs() > behind / 2, got.double().clamp(-behind, behind), got.double())


def ulps(got: Tensor, truth: Tensor, size: Tensor | None = None, least: float = FLUSHED) -> Tensor:
    """Return the error of each result in ulp of its dtype; at most half an ulp where it is rounded correctly.

    An ulp is the distance to the next number; below the smallest normal one it is the same everywhere.

    Args:
        got: the results.
        truth: the same in float64.
        size: what errors are relative to where that is more than the truth.
        least: smaller absolute errors are none.
    """
    info = torch.finfo(got.dtype)
    largest = truth.abs() if size is None else torch.maximum(truth.abs(), size)
    ulp = torch.exp2(largest.clamp(min=info.tiny).log2().floor()) * info.eps
    rounded = truth.to(got.dtype)
    error = (bounded(got, truth) - truth).abs()
    same = (got == rounded) & ~got.isfinite()
    same |= (got.isnan() & rounded.isnan()) | (error < least)
    return torch.where(same, 0.0, (error / ulp).nan_to_num(nan=math.inf, posinf=math.inf))


def beyond(
    got: Tensor, truth: Tensor, size: Tensor | None = None, least: float = FLUSHED
) -> Tensor:
    """Return the same as `ulps`, but 0 where a result is rounded correctly."""
    return torch.where(got == truth.to(got.dtype), 0.0, ulps(got, truth, size, least))


def sizes(truth: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return what to compare results with: the truth, or where it changes its sign nearby, its size there.

    Args:
        truth: a function's values.
        low: its values at 0.7 times the arguments.
        high: its values at 1.4 times the arguments.
    """
    return torch.where(low * high < 0, torch.maximum(low.abs(), high.abs()), truth.abs())
