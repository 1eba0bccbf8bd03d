"""Functions of x alone, value and derivative, against the truth: all numbers of 16 bits, strata of float32.

The packages are built as a user's are, and called as a user calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.tools.check.condition import units
from fusegen.tools.check.reference import run_chain
from prove.truth import Truth
from prove.ulps import FLUSHED, NORMAL_TAIL, TARGETS, beyond

#: How many results of a chunk are measured in units; and of a chunk that is worse than all before it.
FEW, FEWEST = 500, 4
#: How many results are held against 60 digits before a measure gives up.
PATIENCE = 20_000


@dataclass
class Worst:
    """The largest error, in ulp, and where it is."""

    ulp: float = 0.0
    x: float | None = None
    got: float | None = None
    truth: float | None = None


@dataclass
class Unlike:
    """Results that are not torch's in kind: NaN, infinite, or zero of another sign.

    Args:
        torch: how many are the truth's kind, and torch's are not.
        zeros: how many are zeros of another sign than torch's and the truth's.
        others: how many are neither.
        examples: some of each: what they are, input, result, torch's, truth.
    """

    torch: int = 0
    zeros: int = 0
    others: int = 0
    examples: list[tuple[str, str, str, str, str]] = field(default_factory=list)


@dataclass
class Measured:
    """What was measured of one function with one dtype.

    Args:
        function: what a table calls it.
        package: the spec.
        dtype: the dtype.
        order: 0 for the value, 1 for the derivative.
        inputs: how many numbers it was called with.
        away: the largest error where the truth does not change its sign nearby.
        crossing: the largest error where it does, in ulp of its size around there.
        eager: the largest error of torch's own functions, of both kinds.
        far: how many results are beyond the target.
        units: the largest error of these in units of `fusegen check`: what rounding each operation may cost;
            of the largest that are measured together, and of as many others (`FEW`).
        over: by how many ulp one of these is more wrong than torch's.
        tiny: how many are beyond the target by less than `FLUSHED` alone, which all of the above leave out.
        tail: how many are by less than `NORMAL_TAIL` alone, which they leave out too.
        unlike: what is not torch's in kind.
    """

    function: str
    package: str
    dtype: str
    order: int
    inputs: int = 0
    away: Worst = field(default_factory=Worst)
    crossing: Worst = field(default_factory=Worst)
    eager: Worst = field(default_factory=Worst)
    far: int = 0
    units: float = 0.0
    over: float = 0.0
    tiny: int = 0
    tail: int = 0
    unlike: Unlike = field(default_factory=Unlike)

    @property
    def right(self) -> bool:
        """Whether each result is within the target, or within what rounding each operation may cost."""
        return self.units <= 1 and not self.unlike.others


def measure(
    row: Measured, package: ModuleType, chain: Chain, truth: Truth, x: Tensor, few: int = FEW
) -> None:
    """Add what a package and torch give for some numbers to what was measured.

    Args:
        row: what was measured so far.
        package: the package.
        chain: its chain.
        truth: the truth of the row's order.
        x: the numbers, on the device on which the package runs; the truth is computed there too.
        few: how many results beyond the target are measured in units; if 0, some that are the worst so far.
    """
    row.inputs += len(x)
    got = called(package.apply, row.order, x)
    eager = called(lambda t: run_chain(chain.spec, t, {}, {}), row.order, x)
    _compare_kinds(row, x, got, eager, truth)
    finite = x.isfinite()
    x, got, eager = x[finite], got[finite], eager[finite]
    if not len(x):
        return
    held = Held(truth, x)
    target = TARGETS[x.dtype]
    least = FLUSHED if x.dtype == torch.float32 else NORMAL_TAIL.get(row.package, FLUSHED)
    before = max(row.crossing.ulp, row.away.ulp)
    error = held.errors(got, least, (row.crossing.ulp, row.away.ulp))
    for worst, place in ((row.away, ~held.crossing), (row.crossing, held.crossing)):
        _enter(worst, torch.where(place, error, 0.0), x, got, held.truth)
    by_torch = held.errors(eager, FLUSHED, (row.eager.ulp, row.eager.ulp))
    _enter(row.eager, by_torch, x, eager, held.truth)
    far = error > target
    if far.any():
        row.far += int(far.sum())
        row.over = max(row.over, float((error - by_torch)[far].nan_to_num(0.0).max()))
        if few or max(row.crossing.ulp, row.away.ulp) > before:
            row.units = max(row.units, float(held.units(got, far, max(few, FEWEST)).max()))
    off = (got.double() - held.truth).abs()
    raw = beyond(got, held.truth, held.size, 0.0) > target
    row.tiny += int((raw & (off < FLUSHED)).sum())
    row.tail += int((raw & (off >= FLUSHED) & (off < least)).sum())


def called(function: Callable[[Tensor], Any], order: int, x: Tensor) -> Tensor:
    """Return a function's value at some numbers, or its derivative there."""
    if order == 0:
        value: Tensor = function(x)
        return value
    leaf = x.clone().requires_grad_()
    value = function(leaf)
    if not value.requires_grad:
        return torch.zeros_like(x)
    (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
    return slope


class Held:
    """The truth at some numbers, in float64; in 60 digits wherever an error would be the largest."""

    def __init__(self, truth: Truth, x: Tensor) -> None:
        self._of, self._x = truth, x
        self.truth = truth.near(x)
        self.size, self.crossing = truth.size(x, self.truth)
        self._exact = torch.zeros_like(x, dtype=torch.bool)

    def errors(self, got: Tensor, least: float, known: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """Return the errors of results, the largest of which is against the exact truth.

        Args:
            got: the results.
            least: smaller absolute errors are none.
            known: the largest error so far where the truth crosses 0, and elsewhere. Only a larger one is
                held against the exact truth.
        """
        for _ in range(PATIENCE // 16):
            error = beyond(got, self.truth, self.size, least)
            pole = (self._x == 0) & got.isinf() & self.truth.isinf()
            error[pole] = 0.0  # `unlike` compares the signs
            places = zip((self.crossing, ~self.crossing), known, strict=True)
            chosen = torch.cat([self._undecided(error, *place) for place in places])
            if not len(chosen):
                return error
            self._decide(chosen)
        raise RuntimeError(f"float64 is no truth for {PATIENCE} numbers near {self._x[chosen]}")

    def _undecided(self, error: Tensor, place: Tensor, so_far: float) -> Tensor:
        """Return where errors of one kind may be the largest and are against float64.

        One that is larger by a thousandth than the largest against the exact truth counts as that one: a
        function that is nearly linear, such as a slope times x, has equal errors in each binade.
        """
        known = max(so_far, float(torch.where(place & self._exact, error, 0.0).max()))
        limit = max(known * 1.001, 0.5)
        open_ = place & ~self._exact
        over = torch.where(open_, error, 0.0)
        largest = over.topk(min(16, len(over)))
        chosen = largest.indices[largest.values > limit]
        if not len(chosen) and known > 0.5:
            error[open_] = error[open_].clamp(max=known * (1 - 1e-9))
        return chosen

    def _decide(self, places: Tensor) -> None:
        """Replace the truth at some places by the exact one; a pole's sign stays float64's."""
        known = self._of.exact(self._x[places].tolist()).to(self._x.device)
        pole = known.isnan() & self.truth[places].isinf()
        self.truth[places] = torch.where(pole, self.truth[places], known)
        self.size[places] = torch.maximum(self.size[places], self.truth[places].abs())
        self._exact[places] = True

    def units(self, got: Tensor, chosen: Tensor, few: int = FEW) -> Tensor:
        """Return errors of chosen results in units of `fusegen check`: the largest, and some others."""
        error = torch.where(chosen, beyond(got, self.truth, self.size), 0.0)
        largest = error.topk(min(few, int(chosen.sum()))).indices
        others = torch.tensor([*_spread(chosen.nonzero()[:, 0], few)], device=got.device)
        places = torch.cat([largest, others])
        self._decide(places)
        # The random roundings are drawn on the CPU.
        spread = self._of.spread(self._x[places].cpu())
        return units(got[places].cpu(), self.truth[places].cpu(), spread)


def _enter(worst: Worst, error: Tensor, x: Tensor, got: Tensor, truth: Tensor) -> None:
    """Replace a largest error by a larger one."""
    if not len(error):
        return
    at = int(error.argmax())
    if error[at] > worst.ulp:
        worst.ulp = float(error[at])
        worst.x, worst.got, worst.truth = float(x[at]), float(got[at]), float(truth[at])


def _compare_kinds(row: Measured, x: Tensor, got: Tensor, eager: Tensor, truth: Truth) -> None:
    """Note where a result is not torch's in kind."""
    places = unlike(got, eager).nonzero()[:, 0]
    x, got, eager = x[places], got[places], eager[places]
    known = truth.near(x)
    off = unlike(got, known.to(got.dtype))
    zeros = off & (got == 0) & (eager == 0)
    kinds = {"torch": ~off, "zeros": zeros, "others": off & ~zeros}
    for kind, chosen in kinds.items():
        setattr(row.unlike, kind, getattr(row.unlike, kind) + int(chosen.sum()))
        if kind in {e[0] for e in row.unlike.examples}:
            continue
        for at in _spread(chosen.nonzero()[:, 0], 3):
            said = (f"{float(t[at]):.9g}" for t in (x, got, eager, known))
            row.unlike.examples.append((kind, *said))


def unlike(one: Tensor, other: Tensor) -> Tensor:
    """Whether numbers differ in being NaN, infinite, or zero, or in the sign of these."""
    wrong = (one.isnan() != other.isnan()) | (one.isinf() != other.isinf())
    signed = (one.isinf() & other.isinf()) | ((one == 0) & (other == 0))
    return wrong | (signed & (one.signbit() != other.signbit()))


def _spread(places: Tensor, count: int) -> Iterator[int]:
    """Yield some of the places: the first, the last, and some between."""
    few = torch.linspace(0, len(places) - 1, min(count, len(places))).long()
    yield from places[few.to(places.device)].tolist()


def line(row: Measured) -> str:
    """Return what is said of a row."""
    kind = ("value", "derivative")[row.order]
    note = "" if row.right else "  WRONG"
    far = f"{row.far} beyond, {row.units:.2g} units, {row.over:.2g} over eager, "
    unlike = f"unlike torch {row.unlike.torch} {row.unlike.zeros} {row.unlike.others}"
    return (
        f"{row.function:34} {kind:10} {row.dtype:8} {row.away.ulp:8.3g} at {row.away.x}, "
        f"crossing {row.crossing.ulp:.3g} at {row.crossing.x}, eager {row.eager.ulp:.3g}, "
        f"{far if row.far else ''}{row.tiny} tiny, {row.tail} tail, {unlike}{note}"
    )


#: Why results of some packages are beyond the target, or not torch's in kind, where no unit accounts for it.
REASONS = {
    ("only_pow_2", "only_rsqrt_0", "formula_rsqrt"): (
        "The derivative of 1 / sqrt(x) at -0 and -inf is the cube of a root's reciprocal. "
        "torch's is that in one dtype, and C's `pow` with an exponent of -3/2 in another."
    ),
    ("only_gelu_0", "formula_normcdf"): (
        "Near 0 the tail of the normal distribution is a polynomial in 1 / (1 + 3 |x| / 8), whose rounding "
        "counts twice."
    ),
}


def accounted(row: dict[str, Any]) -> bool:
    """Whether a row of a record is right, or has a reason."""
    return row["right"] or any(row["package"] in packages for packages in REASONS)
