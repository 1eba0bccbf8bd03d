"""Which numbers of many could change what was measured of a function; the others need no second look."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.tools.check.reference import run_chain
from prove.every_input import Measured, called, unlike
from prove.truth import Truth
from prove.ulps import TARGETS

#: The bits of a float64 number's exponent.
_EXPONENT = 0x7FF0000000000000


def worth_measuring(
    row: Measured, package: ModuleType, chain: Chain, truth: Truth, x: Tensor
) -> Tensor:
    """Return the numbers whose results may be the worst so far, beyond the target, or wrong unlike torch's.

    Errors are held against the truth alone here. Where it changes its sign nearby, `measure` holds them
    against more, so that none is larger there. What is left out has no larger error than the largest so far.
    It is counted in the row where torch's result alone is of another kind.
    """
    got = called(package.apply, row.order, x)
    eager = called(lambda t: run_chain(chain.spec, t, {}, {}), row.order, x)
    worst = min(max(row.away.ulp, row.crossing.ulp), TARGETS[x.dtype])
    limits = torch.tensor([worst, row.eager.ulp], dtype=torch.float64, device=x.device)
    given = (got, eager, truth.near(x), limits)
    chosen, by_torch = _screen_on(x.device.type)(*given)
    if not any(kind == "torch" for kind, *_ in row.unlike.examples):
        return x[chosen | by_torch]  # for an example
    row.unlike.torch += int(by_torch.sum())
    return x[chosen]


def screen(got: Tensor, eager: Tensor, known: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """Return which results are to be measured, and which others are unlike torch's because torch's are wrong.

    Args:
        got: the results.
        eager: torch's, of the same shape and dtype.
        known: the truth in float64.
        limits: the errors, in ulp, up to which results and torch's need not be measured.
    """
    differs, wrong = unlike(got, eager), unlike(got, known.to(got.dtype))
    chosen = differs & wrong
    chosen = chosen | _exceeds(got, known, limits[0]) | _exceeds(eager, known, limits[1])
    return chosen, differs & ~chosen


@cache
def _screen_on(device: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return `screen` for a device: on a GPU as one kernel, since it would take most of the time there."""
    return torch.compile(screen, dynamic=False) if device == "cuda" else screen


def _exceeds(got: Tensor, known: Tensor, limit: Tensor) -> Tensor:
    """Whether results are wrong by more than so many ulp, and are not rounded correctly."""
    info, rounded = torch.finfo(got.dtype), known.to(got.dtype)
    # The largest power of two in the truth: of the smallest normal number, where it is smaller.
    power = (known.abs().clamp(min=info.tiny).view(torch.int64) & _EXPONENT).view(torch.float64)
    within = (got.double() - known).abs() <= power * (limit * info.eps)
    return ~(within | (got == rounded) | (got.isnan() & rounded.isnan())) & (limit < torch.inf)
