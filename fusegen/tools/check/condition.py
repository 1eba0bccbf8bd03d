"""How exact a result can be, and how many such units it is off: the measure of every comparison with float64.

A unit of an element is

    eps |truth| + 4 spread + least

with eps the spacing of the dtype's numbers at 1, and least what underflows. The first term is an ulp of
the result itself. `spread` is what the rounding of all operations before it leaves in the result: the
standard deviation over a few runs of the chain's own programs in float64, with a random error in each
operation (`rounding.py`). A sum of errors that are no larger than these hardly ever exceeds four deviations.
Eight runs tell the deviation to within a factor of two for most elements, not for one in a thousand: what is
beyond its bound by them is held against 64 (`compare.py`).

So an element is held against the magnitudes that were added to make it, each as far as it reaches the result.
Where nothing cancels, as in functions, products and a softmax, the spread is of the order of an ulp of the
element, however small it is beside its neighbours. Where something cancels, as in x - mean(x), it is eps
times the size of what was subtracted. An error that cannot reach the result, as that of the maximum in a
softmax, counts for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusegen.tools.check.rounding import EXACT, RandomRounding, Rounding

__all__ = ["MORE_RUNS", "RUNS", "Worst", "spreads", "units", "worst"]

#: How many runs with errors a spread is estimated from, and from how many where that decides.
RUNS, MORE_RUNS = 8, 64
#: What is computed in float32 for a 16-bit result takes functions with errors up to this (precision.h).
_BRIEF = 2.0**-11
#: Errors smaller than this would be lost among those of float64 itself, so they are drawn larger, and the
#: spread, which is proportional to them, is scaled back.
_LEAST = 2.0**-32


def least(dtype: torch.dtype) -> float:
    """Return what a result may lose to underflow: functions of float32 may be 0 below its normal numbers."""
    info = torch.finfo(dtype)
    computed = torch.finfo(torch.promote_types(dtype, torch.float32))
    return max(info.tiny * info.eps, computed.tiny)


def spreads(
    run: Callable[[Rounding], Sequence[Tensor]],
    dtype: torch.dtype,
    *,
    seed: int = 0,
    runs: int = RUNS,
) -> list[Tensor]:
    """Return the standard deviation of each result under the rounding of a dtype's kernels.

    Args:
        run: evaluates the programs in float64, with what becomes of each operation's value.
        dtype: the dtype of the tensors; 16-bit types are computed in float32.
        seed: the seed of the errors.
        runs: how many evaluations with errors it is estimated from.
    """
    info = torch.finfo(torch.promote_types(dtype, torch.float32))
    brief = torch.finfo(dtype).bits == 16
    unit = max(info.eps, _LEAST)
    stored = torch.finfo(dtype).eps if brief else 0.0
    plain = run(EXACT)
    roots = [torch.zeros_like(t) for t in plain]
    for number in range(runs):
        errors = RandomRounding(
            unit, _BRIEF if brief else unit, stored, least=info.tiny, seed=seed * RUNS + number
        )
        for root, value, exact in zip(roots, run(errors), plain, strict=True):
            # hypot, because the square of an error near 1e-176 is 0.
            torch.hypot(root, (value - exact).nan_to_num(0.0, 0.0, 0.0), out=root)
    return [root * (runs**-0.5 * info.eps / unit) for root in roots]


@dataclass(frozen=True)
class Worst:
    """The element of a result that is furthest from the truth, in its units."""

    units: float
    index: tuple[int, ...]
    got: float
    truth: float


def units(got: Tensor, truth: Tensor, spread: Tensor) -> Tensor:
    """Return how many units each element is off; infinitely many where NaN or infinity is not the truth's.

    Args:
        got: a result in any dtype.
        truth: the same in float64.
        spread: its standard deviation (`spreads`).
    """
    info = torch.finfo(got.dtype)
    rounded = truth.to(got.dtype).double()  # what overflows the dtype is infinite in it
    found = got.double()
    same = (found == rounded) | (found.isnan() & rounded.isnan())
    size = info.eps * truth.abs() + 4 * spread + least(got.dtype)
    off = (found - truth).abs() / size
    off = torch.where(torch.isfinite(rounded) & torch.isfinite(found), off, math.inf)
    return torch.where(same, 0.0, off)


def worst(got: Tensor, truth: Tensor, spread: Tensor) -> Worst:
    """Return the element that is furthest off; of nothing, one without an index that is not off at all."""
    off = units(got, truth, spread)
    if not off.numel():
        return Worst(0.0, (), math.nan, math.nan)
    place = int(off.reshape(-1).argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), off.shape))
    return Worst(float(off[index]), index, float(got[index]), float(truth[index]))
