"""Which numbers of many could change what was measured of a function; the others need no second look."""

from __future__ import annotations

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
    """Return the numbers whose results may be the worst so far, beyond the target, or unlike torch's.

    Errors are held against the truth alone here. Where it changes its sign nearby, `measure` holds them
    against more, so that none is larger there. What is left out has no larger error than the largest so far.
    """
    got = called(package.apply, row.order, x)
    eager = called(lambda t: run_chain(chain.spec, t, {}, {}), row.order, x)
    known = truth.near(x)
    worst = max(row.away.ulp, row.crossing.ulp)
    chosen = unlike(got, eager) | _exceeds(got, known, min(worst, TARGETS[x.dtype]))
    return x[chosen | _exceeds(eager, known, row.eager.ulp)]


def _exceeds(got: Tensor, known: Tensor, limit: float) -> Tensor:
    """Whether results are wrong by more than so many ulp, and are not rounded correctly."""
    info, rounded = torch.finfo(got.dtype), known.to(got.dtype)
    # The largest power of two in the truth: of the smallest normal number, where it is smaller.
    power = (known.abs().clamp(min=info.tiny).view(torch.int64) & _EXPONENT).view(torch.float64)
    within = (got.double() - known).abs() <= power * (limit * info.eps)
    return ~(within | (got == rounded) | (got.isnan() & rounded.isnan()))
