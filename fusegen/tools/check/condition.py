"""The unit of every comparison with float64: how exact a result can be.

A unit of an element is

    eps |truth| + 4 spread + least

`eps` is the spacing of the dtype's numbers at 1, and `least` the size of what may underflow. The first term
is an ulp of the result itself. `spread` is the rounding error from all earlier operations: the standard
deviation over a few runs of the chain's own programs in float64, with a random error in each operation
(`rounding.py`). A sum of such errors hardly ever exceeds four deviations. Eight runs give the deviation
within a factor of two for most elements, but not for one in a thousand. So an element beyond its bound is
measured again with 64 runs (`compare.py`). How values of 16 bits are rounded between two kernels is no random
number: the spread is at least half the error of a run that rounds them alike.

So an element's error is compared with the magnitudes that were added to compute it, weighted by their
influence on the result. If nothing cancels, as in functions, products and a softmax, the spread is about an
ulp of the element, however small the element is. If something cancels, as in x - mean(x), the spread is eps
times the size of what was subtracted. An error that does not reach the result, such as that of the maximum in
a softmax, does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusegen.tools.check.every_number import bounded
from fusegen.tools.check.rounding import EXACT, RandomRounding, Rounding, StoredRounding

__all__ = ["MORE_RUNS", "RUNS", "Worst", "spreads", "units", "worst"]

#: The number of runs with errors for a first estimate of the spread, and for one that decides.
RUNS, MORE_RUNS = 8, 64
#: Functions in float32 have errors up to this if the result has 16 bits (precision.h).
_BRIEF = 2.0**-11
#: Smaller errors would be lost among those of float64 itself. So they are drawn larger, and the spread, which
#: is proportional to them, is scaled back.
_LEAST = 2.0**-32


def least(dtype: torch.dtype) -> float:
    """Return what a result may lose by underflow: float32 functions may be 0 below its normal numbers."""
    info = torch.finfo(dtype)
    computed = torch.finfo(torch.promote_types(dtype, torch.float32))
    return max(info.tiny * info.eps, computed.tiny)


def spreads(
    run: Callable[[Rounding], Sequence[Tensor]],
    dtype: torch.dtype,
    *,
    seed: int = 0,
    runs: int = RUNS,
    precise: bool = False,
) -> list[Tensor]:
    """Return the standard deviation of each result under the rounding of a dtype's kernels.

    Args:
        run: evaluates the programs in float64, with a rounding of each operation's value.
        dtype: the dtype of the tensors; 16-bit types are computed in float32.
        seed: the seed of the errors.
        runs: the number of evaluations with errors for the estimate.
        precise: whether functions have float32's digits also for tensors of 16 bits.
    """
    info = torch.finfo(torch.promote_types(dtype, torch.float32))
    brief = torch.finfo(dtype).bits == 16
    unit = max(info.eps, _LEAST)
    stored = torch.finfo(dtype).eps if brief else 0.0
    plain = run(EXACT)
    roots = [torch.zeros_like(t) for t in plain]
    for number in range(runs):
        errors = RandomRounding(
            unit,
            _BRIEF if brief and not precise else unit,
            stored,
            least=info.tiny,
            seed=seed * RUNS + number,
        )
        for root, value, exact in zip(roots, run(errors), plain, strict=True):
            # hypot, because the square of an error near 1e-176 is 0.
            torch.hypot(root, (value - exact).nan_to_num(0.0, 0.0, 0.0), out=root)
    found = [root * (runs**-0.5 * info.eps / unit) for root in roots]
    if brief:  # what a later kernel reads
        for spread, value, exact in zip(found, run(StoredRounding(dtype)), plain, strict=True):
            torch.maximum(spread, (value - exact).nan_to_num(0.0, 0.0, 0.0).abs() / 2, out=spread)
    return found


@dataclass(frozen=True)
class Worst:
    """The element of a result with the largest error in units."""

    units: float
    index: tuple[int, ...]
    got: float
    truth: float


def units(got: Tensor, truth: Tensor, spread: Tensor) -> Tensor:
    """Return the error of each element in units; infinite if a NaN or infinity differs from the reference's.

    Where the reference is about the dtype's largest number, an infinity is the number behind that.

    Args:
        got: a result in any dtype.
        truth: the same in float64.
        spread: its standard deviation (`spreads`).
    """
    info = torch.finfo(got.dtype)
    rounded = truth.to(got.dtype).double()  # a value that overflows the dtype is infinite in it
    found = bounded(got, truth)
    same = (got.double() == rounded) | (found.isnan() & rounded.isnan())
    size = info.eps * truth.abs() + 4 * spread + least(got.dtype)
    off = (found - truth).abs() / size
    return torch.where(same, 0.0, off.nan_to_num(nan=math.inf, posinf=math.inf))


def worst(got: Tensor, truth: Tensor, spread: Tensor) -> Worst:
    """Return the element with the largest error; for an empty result, one without index and error."""
    off = units(got, truth, spread)
    if not off.numel():
        return Worst(0.0, (), math.nan, math.nan)
    place = int(off.reshape(-1).argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), off.shape))
    return Worst(float(off[index]), index, float(got[index]), float(truth[index]))
