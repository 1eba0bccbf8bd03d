"""A built program against torch's own functions in float64: value, gradients, second derivatives."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.chain.cut_into_segments import spans_of
from random_programs import noise, reference
from random_programs.calls import Case, apply, cases, restrided
from random_programs.modules import module_case
from random_programs.named_calls import NamedChain, named_calls
from random_programs.program import Program

#: How many runs with noise an error is held against at most, and how many times their spread it may be.
RUNS, FACTOR = 64, 10.0
#: The same where numbers have few digits and stay as they are: the noise then lacks the roundings within a
#: function, as that of x - mean(x), which only its inputs' noise has.
FACTOR_OF_TIES = 30.0
DTYPES = (torch.float64, torch.float32, torch.bfloat16)
Results = Tensor | tuple[Tensor, ...]
Function = Callable[[dict[str, Tensor]], Results]
#: The same by torch, to which may be given what becomes of a step's value, and whether norms are written out.
Wanted = Callable[..., Results]


@dataclass(frozen=True)
class Failure:
    """A result that is wrong, or a crash.

    Args:
        program: the program's name.
        what: the case, the dtype and the result.
        detail: the numbers, or the exception.
        ratio: the error over its bound.
    """

    program: str
    what: str
    detail: str
    ratio: float

    def __str__(self) -> str:
        return f"{self.program}: {self.what}: {self.detail}"


@dataclass
class Report:
    """What became of a program: what is wrong, and how much was compared."""

    failures: list[Failure] = field(default_factory=list)
    calls: int = 0
    results: int = 0


def check(
    program: Program,
    chain: Chain | None,
    package: ModuleType,
    dtypes: Sequence[torch.dtype] = DTYPES,
) -> Report:
    """Return what is wrong with a built program: with `apply`, and with its Module in float64."""
    report = Report()

    def compared(
        case: Case, dtype: torch.dtype, ours: Function, wanted: Wanted, about: Any = chain
    ) -> None:
        what = f"{case.label}, {str(dtype).removeprefix('torch.')}"
        report.calls += 1
        try:
            wrong, results = _compare(about, case, dtype, ours, wanted)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            report.failures.append(Failure(program.name, what, text, float("inf")))
            return
        report.results += results
        for name, found in wrong.items():
            report.failures.append(Failure(program.name, f"{what}, {name}", *found))

    if program.tensors is not None:
        about = NamedChain.of(program)
        for case, ours, wanted in named_calls(program, package):
            for dtype in dtypes:
                compared(case, dtype, ours, wanted, about)
        return report
    assert chain is not None
    for case in cases(program, chain):
        for dtype in dtypes:
            compared(case, dtype, functools.partial(apply, package, case), _by_torch(program, case))
    for training in (False, True) if chain.moded else (False,):
        try:
            module = module_case(program, chain, package, training=training)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            report.failures.append(Failure(program.name, "module", text, float("inf")))
            continue
        if module is not None:
            case, ours, wanted = module
            compared(case, torch.float64, ours, wanted)
    return report


def _by_torch(program: Program, case: Case) -> Wanted:
    """Return what `apply` is to give, by the reference."""

    def wanted(
        given: dict[str, Tensor],
        hand: reference.Hand = lambda _, v: v,
        written_out: bool = case.exact,
    ) -> Tensor:
        operands = {n: t for n, t in given.items() if n != "x"}
        call = reference.Call(
            operands, case.numbers, case.training, case.seed, written_out=written_out
        )
        return reference.run(program.document, given["x"], call, hand)

    return wanted


def _compare(
    chain: Chain | NamedChain, case: Case, dtype: torch.dtype, ours: Function, wanted: Wanted
) -> tuple[dict[str, tuple[str, float]], int]:
    """Return what is wrong with a call, by the result's name, and how many results were compared."""
    precision = noise.PRECISIONS[dtype]
    wide = chain.wide if isinstance(chain, NamedChain) else _float32(chain)
    computed = torch.promote_types(dtype, torch.float32)
    own = {n: computed if n in wide else dtype for n in case.tensors}
    tensors = {n: t.to(own[n]) if t.is_floating_point() else t for n, t in case.tensors.items()}
    cotangents = _Cotangents(case)
    between = chain.between if isinstance(chain, NamedChain) else _handed(chain)
    if isinstance(chain, NamedChain):
        own |= dict.fromkeys(chain.wide_results, computed) | dict.fromkeys(
            chain.indexes, torch.int64
        )

    def start(compute: torch.dtype) -> dict[str, Tensor]:
        return {n: t.to(compute) if t.is_floating_point() else t for n, t in tensors.items()}

    try:
        truths = derivatives(wanted, start(torch.float64), case, cotangents)
    except ValueError as error:  # what torch refuses must be refused
        try:
            ours(dict(tensors))
        except ValueError:
            return {}, 0
        return {"value": (f"torch refuses it: {error}", float("inf"))}, 1
    strides = None if case.strides is None else random.Random(case.strides)
    lying = dict(tensors)
    if strides is not None:  # what an element draws follows the order in which elements lie
        lying = {n: restrided(t, strides, reordered=not chain.random) for n, t in tensors.items()}
    results = derivatives(ours, lying, case, cotangents, strides)
    with torch.no_grad():
        again = _values(ours(dict(lying)))
    for name, value in again.items():
        results[f"{name} without gradients"] = value
        truths[f"{name} without gradients"] = truths[name]

    runs = _runs(wanted, start(precision.compute), case, cotangents, precision, between)
    spread = {n: torch.zeros_like(t) for n, t in truths.items()}
    wrong: dict[str, tuple[str, float]] = {}
    factor = FACTOR_OF_TIES if case.exact else FACTOR
    finite = all(bool(torch.isfinite(t).all()) for t in results.values())
    overflows = not finite and noise.leaves_range(lambda: wanted(start(precision.compute)))
    for found in runs:  # most results need few of them
        for name, truth in truths.items():
            away = _distance(found[name.removesuffix(" without gradients")], truth)
            spread[name] = torch.maximum(spread[name], away)
        widened = {n: _widened(spread[n], t) for n, t in truths.items()}
        if case.exact:
            widened |= _of_sums(widened, truths, tensors["x"].numel(), precision.rounding)
        named = {
            n: _wrong(
                results[n],
                t,
                factor * widened[n],
                own.get(n.removesuffix(" without gradients").rpartition(" of ")[2], dtype),
                precision,
                gradient=not n.startswith("value"),
                overflows=overflows,
            )
            for n, t in truths.items()
        }
        wrong = {name: found for name, found in named.items() if found is not None}
        if not wrong:
            break
    return wrong, len(truths)


def _of_sums(
    spread: Mapping[str, Tensor], truths: Mapping[str, Tensor], whole: int, rounding: float
) -> dict[str, Tensor]:
    """Return the spreads of gradients that are sums, at least a rounding of the largest.

    The sum of cotangents of few digits may be 0, and that of their products with a slope, which a kernel
    adds, is so but for rounding.
    """
    return {
        name: torch.maximum(spread[name], rounding * truth.abs().max())
        for name, truth in truths.items()
        if not name.startswith("value") and 0 < truth.numel() < whole and truth.isfinite().all()
    }


def _handed(chain: Chain) -> set[int]:
    """Return the places in the chain of those steps whose values one kernel writes and another reads."""
    spans = spans_of(chain.spec)
    labels = {span.steps[-1].label for span in spans[:-1]}
    labels |= {name for span in spans for name in span.handed}
    return {place for place, step in enumerate(chain.spec.steps) if step.label in labels}


def _float32(chain: Chain) -> set[str]:
    """Return the operands that are of float32 beside an x of 16 bits."""
    return {operand.name for operand in chain.operands if operand.float32}


class _Cotangents:
    """Random cotangents, the same for every dtype: of few digits."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def like(self, tensor: Tensor, place: int) -> Tensor:
        generator = torch.Generator().manual_seed(7 * self.case.seed + place)
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if self.case.exact:  # none is 0, by which torch leaves some NaN out and not others
            drawn = torch.where(drawn >= 0, (2 * drawn).ceil(), (2 * drawn).floor()) / 2
        return drawn.bfloat16().to(tensor.dtype)


def derivatives(
    function: Function,
    tensors: Mapping[str, Tensor],
    case: Case,
    cotangents: _Cotangents,
    strides: random.Random | None = None,
) -> dict[str, Tensor]:
    """Return a function's value and its derivatives in every tensor that moves, by name."""
    leaves = {
        n: t.detach().requires_grad_(n in case.moving)
        if case.strides is not None
        else t.detach().clone().requires_grad_(n in case.moving)
        for n, t in tensors.items()
    }
    values = _values(function(dict(leaves)))
    moving = [leaves[n] for n in case.moving]
    found = {n: v.detach() for n, v in values.items()}
    # A value's cotangent goes by its place: of what gets no gradient a package may say that it does.
    places = [n for n, v in enumerate(values.values()) if v.requires_grad]
    moved = [v for v in values.values() if v.requires_grad]
    along = [cotangents.like(v, -100 * n) for n, v in zip(places, moved, strict=True)]
    if strides is not None:
        along = [restrided(t, strides) for t in along]
    if not moved:
        return found
    for cotangent in along:
        cotangent.requires_grad_(case.twice)
    inputs = dict(zip(case.moving, moving, strict=True))
    ways = [*zip(places, moved, along, strict=True)]
    found |= _pulled(ways, inputs, case, cotangents)
    if len(ways) > 1:  # a caller may ignore some values
        draw = random.Random(case.seed)
        used = draw.sample(ways, draw.randint(1, len(ways) - 1))
        named = _pulled(used, inputs, case, cotangents)
        found |= {f"of some values, {name}": tensor for name, tensor in named.items()}
    return found


def _pulled(
    ways: Sequence[tuple[int, Tensor, Tensor]],
    inputs: Mapping[str, Tensor],
    case: Case,
    cotangents: _Cotangents,
) -> dict[str, Tensor]:
    """Return the derivatives of some values along cotangents, by name.

    Args:
        ways: the place of each value, the value, and its cotangent.
        inputs: what the derivatives are by.
        case: the case.
        cotangents: what gives those of the gradients.
    """
    places, moved, along = zip(*ways, strict=True)
    moving = [*inputs.values()]
    grads = torch.autograd.grad(
        moved,
        moving,
        along,
        create_graph=case.twice,
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    found = {f"grad of {n}": g.detach() for n, g in zip(inputs, grads, strict=True)}
    if case.twice:
        pushed = sum((g * cotangents.like(g, i + 1)).sum() for i, g in enumerate(grads))
        assert isinstance(pushed, Tensor)
        if pushed.requires_grad:
            second = torch.autograd.grad(
                pushed,
                [*moving, *along],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            names = [*inputs, *(f"cotangent{n or ''}" for n in places)]
            found |= {f"second of {n}": g.detach() for n, g in zip(names, second, strict=True)}
    return found


def _values(results: Results) -> dict[str, Tensor]:
    """Return what a function returns, by name."""
    if isinstance(results, Tensor):
        return {"value": results}
    return {f"value {n}": value for n, value in enumerate(results)}


def _runs(
    function: Any,
    tensors: Mapping[str, Tensor],
    case: Case,
    cotangents: _Cotangents,
    precision: noise.Precision,
    between: set[int],
) -> Iterator[dict[str, Tensor]]:
    """Yield torch's own results: first as they are, then with noise."""
    yield derivatives(function, tensors, case, cotangents)
    # Written out, a gradient that is 0 may be so without an error; by torch's own kernels it has one.
    if case.exact:

        def by_kernels(given: dict[str, Tensor]) -> Any:
            return function(given, written_out=False)

        yield derivatives(by_kernels, tensors, case, cotangents)
    for run in range(RUNS):
        generator = torch.Generator().manual_seed(1000 + run)
        mode = noise.Noise(precision.rounding, precision.function, generator, exact=case.exact)

        def hand(place: int, value: Tensor, generator: torch.Generator = generator) -> Tensor:
            return noise.handed(value, precision.handed if place in between else 0.0, generator)

        moved = {
            n: t if case.exact else mode.moved(t, precision.rounding) for n, t in tensors.items()
        }
        norms = case.exact or run % 2 == 1  # by torch's kernels, then by operations

        def noisy(given: dict[str, Tensor], hand: Any = hand, norms: bool = norms) -> Any:
            return function(given, hand, norms)

        with mode:
            found = derivatives(noisy, moved, case, cotangents)
        yield found


def _distance(result: Tensor, truth: Tensor) -> Tensor:
    """Return how far a result of torch is from the truth, per element; infinite where it is not finite."""
    got = result.double()
    same = (got == truth) | (got.isnan() & truth.isnan())
    gap = torch.where(same, 0.0, (got - truth).abs())
    return torch.where(torch.isfinite(gap), gap, float("inf"))


def _widened(spread: Tensor, truth: Tensor) -> Tensor:
    """Return a spread that every element has where noise decides which element gets a gradient.

    Of nearly equal elements one is the largest: a few runs do not show all that could be. An element's
    relative spread is also at least half of what its neighbours mostly have.
    """
    if truth.numel() == 0:
        return spread
    sizes = torch.where(torch.isfinite(truth), truth.abs(), 0.0)
    relative = torch.nan_to_num(spread / sizes, nan=0.0, posinf=0.0)
    spread = torch.maximum(spread, 0.5 * relative.median() * sizes)
    finite = torch.isfinite(spread)
    if finite.any():
        largest = spread[finite].max()
        if largest > 0.05 * sizes.max():
            spread = torch.maximum(spread, largest)
    return spread


def _wrong(
    result: Tensor,
    truth: Tensor,
    spread: Tensor,
    dtype: torch.dtype,
    precision: noise.Precision,
    *,
    gradient: bool,
    overflows: bool,
) -> tuple[str, float] | None:
    """Return what is wrong with a result, and its error over its bound, or None.

    Where a value of the forward pass `overflows`, a gradient that is not finite is not judged: the derivative
    of what is infinite, times 0, is 0 or NaN, as the operations happen to be grouped.
    """
    if result.dtype != dtype:
        return f"{result.dtype}", float("inf")
    if result.shape != truth.shape:
        return f"shape {tuple(result.shape)}, not {tuple(truth.shape)}", float("inf")
    if not dtype.is_floating_point:  # the numbers of columns
        count = int((result != truth).sum())
        return (f"{count} of {truth.numel()} differ", float("inf")) if count else None
    if truth.numel() == 0:
        return None
    info = torch.finfo(dtype)
    rounded = truth.to(dtype).double()
    got = result.double()
    tiny = info.tiny * (4 if dtype == torch.float64 else 1e6)
    last = precision.result * (2 if precision.handed == 0 else 1.01)
    bound = spread + tiny + torch.where(torch.isfinite(truth), last * truth.abs(), 0.0)
    error = torch.where(
        (got == rounded) | (got.isnan() & rounded.isnan()), 0.0, (got - truth).abs()
    )
    ratio = torch.where(error == 0, 0.0, error / bound)
    ratio = torch.where(torch.isinf(bound), 0.0, ratio)  # torch itself is not finite there
    # The reciprocal of what is 0 but for its rounding: torch's result has no digit, and might be infinite.
    pole = (spread >= truth.abs()) & (spread > 1 / torch.finfo(precision.compute).eps)
    ratio = torch.where(pole & ~torch.isfinite(got), 0.0, ratio)
    # Torch's NaN is 0 times infinity there, of which a derivative that is 0 knows nothing.
    # It squares what it divides by, and that may be 0, or infinite, where the quotient is neither.
    if gradient:
        ratio = torch.where(truth.isnan(), 0.0, ratio)
        squared = truth.isinf() & (got.sign() == truth.sign()) & (got.abs() > info.max**0.5)
        ratio = torch.where(squared, 0.0, ratio)
        if overflows:
            ratio = torch.where(torch.isfinite(got), ratio, 0.0)
    ratio = torch.where(ratio.isnan(), float("inf"), ratio)
    worst = int(ratio.reshape(-1).argmax())
    largest = float(ratio.reshape(-1)[worst])
    if largest <= 1:
        return None
    at = (
        tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), truth.shape))
        if truth.dim()
        else ()
    )
    count = int((ratio > 1).sum())
    detail = (
        f"{float(got.reshape(-1)[worst]):.9g}, not {float(truth.reshape(-1)[worst]):.9g}, at {at}"
        f" (bound {float(bound.reshape(-1)[worst]):.3g}; {count} of {truth.numel()})"
    )
    return detail, largest
