"""Is a built package right? Gradcheck in float64, and every dtype against float64 truth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fusegen import chain, pipeline
from fusegen.eager import run_chain
from fusegen.program import Kind
from fusegen.random_operands import random_operands
from fusegen.runtime.loading import load_package

#: How far a result may be from float64 truth, in ulp of its dtype: half an ulp is the rounding of a
#: 16-bit result; float32 adds the rounding of some tens of operations, and of a row's sum,
#: which is the same for all its elements, so that it does not average out in sums over those. In float64
#: the truth is no more exact than the result, and where they cancel the two errors add up.
BOUND_ULP = {torch.float64: 1024.0, torch.float32: 32.0, torch.bfloat16: 1.0, torch.float16: 1.0}


@dataclass(frozen=True)
class Verdict:
    """One check of one package: what was checked, its worst error and its bound, as text."""

    package: str
    device: str
    what: str
    worst: str
    bound: str
    passed: bool


@dataclass(frozen=True)
class Case:
    """A call of a chain: its tensors, in float64, and the options of `apply`.

    Args:
        x: the activation [..., cols].
        operands: the chain's operands, by name.
        options: the keyword arguments of `apply`.
        seed: the seed, for chains that draw.
    """

    x: Tensor
    operands: dict[str, Tensor]
    options: dict[str, Any]
    seed: int


def ulp_error(
    got: Tensor, truth: Tensor, dtype: torch.dtype | None = None, floor: float = 0.0
) -> float:
    """Return the largest error of `got` in ulp of `dtype`, which is its own unless given.

    An error is measured against the truth's magnitude, but not against less than the root mean square
    of the whole tensor, nor than `floor`: a sum whose terms cancel is exact to an ulp of its terms, not
    of itself. NaN
    and infinity must stand where the truth has them, else the error is infinite.

    Args:
        got: a result in any dtype.
        truth: the same in float64.
        dtype: the dtype whose ulp is the unit.
        floor: the magnitude of the terms of which `truth` is a sum.
    """
    unit = torch.finfo(dtype or got.dtype)
    rounded = truth.to(got.dtype).double()  # what overflows the dtype is infinite in it
    finite = torch.isfinite(rounded)
    if not torch.equal(torch.isnan(got), torch.isnan(rounded)):
        return float("inf")
    if not torch.equal(got.double()[~finite].nan_to_num(), rounded[~finite].nan_to_num()):
        return float("inf")
    if not finite.any():
        return 0.0
    exact = truth[finite]
    size = torch.maximum(exact.abs(), exact.square().mean().sqrt().clamp(min=floor))
    spacing = unit.eps * torch.clamp(size, min=unit.tiny)
    return float(((got.double()[finite] - exact).abs() / spacing).max())


def make_case(
    derived: chain.Chain,
    shape: Sequence[int],
    *,
    training: bool,
    seed: int = 0,
    device: str = "cpu",
) -> Case:
    """Return a random call: x from a normal distribution, operands in [0.5, 1.5)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
    operands = {n: t.to(device) for n, t in random_operands(derived, x, generator).items()}
    options: dict[str, Any] = {
        a.name: a.default if a.default is not None else 1.5
        for a in derived.spec.arguments
        if a.name in derived.attributes
    }
    for groups in derived.groups:  # two or more of two channels or more, if that can be
        channels = derived.layout.half(shape)[1]
        options[groups] = next((n for n in range(2, channels) if channels % n == 0), 1)
    if derived.moded:
        options["training"] = training
    if derived.random:
        options["seed"] = 1234 + seed
    return Case(x.to(device), operands, options, 1234 + seed)


def gradients(
    function: Callable[..., Tensor], tensors: Sequence[Tensor], seed: int
) -> list[Tensor]:
    """Return the value at `tensors` and its gradients there for a random cotangent."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    value = function(*leaves)
    generator = torch.Generator().manual_seed(seed)
    cotangent = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.device)
    rounded = cotangent.bfloat16().to(value.dtype)  # the same cotangent in every dtype
    found = torch.autograd.grad(value, leaves, rounded, materialize_grads=True)
    return [value.detach(), *found]


class _Rounded(torch.autograd.Function):
    """A tensor and its cotangent rounded to a dtype, and back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = dtype
        return tensor.to(dtype).to(tensor.dtype)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return cotangent.to(ctx.dtype).to(cotangent.dtype), None


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    rounded: Tensor = _Rounded.apply(tensor, dtype)  # type: ignore[no-untyped-call]
    return rounded


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _rms(tensor: Tensor) -> Tensor:
    return tensor.double().square().mean().sqrt().nan_to_num()


@dataclass(frozen=True)
class Error:
    """How far a result is from float64 truth, and how far it may be, in ulp of its dtype."""

    name: str
    ulp: float
    bound: float

    @property
    def within(self) -> bool:
        """Whether the result is as exact as it must be."""
        return self.ulp <= self.bound


def compare(package: Any, derived: chain.Chain, case: Case, dtype: torch.dtype) -> list[Error]:
    """Return the errors of a package's output and gradients against float64 truth.

    The output is computed once more without gradients, which another operator does.

    The bound is `BOUND_ULP`, and four times the error that eager makes in the type computed in, with what a
    leg hands on to the next rounded as the package rounds it: where
    a problem is ill-conditioned (exp of large numbers, y (g - d) where y is nearly 1) no order of
    operations is exact, and eager's error is one draw of noise that another order draws anew.

    Args:
        package: the built package.
        derived: its chain.
        case: the call.
        dtype: the dtype to run the package in; the truth starts from the tensors as it rounds them.
    """
    tensors = {"x": case.x, **case.operands}
    rounded = {name: _cast(t, dtype) for name, t in tensors.items()}
    moving = ["x", *(o.name for o in derived.operands if o.differentiable)]
    known = (*derived.attributes, *derived.groups)
    numbers = {k: v for k, v in case.options.items() if k in known}
    training = bool(case.options.get("training", False))

    def run(function: Callable[..., Tensor], given: torch.dtype) -> list[Tensor]:
        start = {name: _cast(t, given) for name, t in rounded.items()}

        def of_leaves(*leaves: Tensor) -> Tensor:
            bound = {n: t.clone() for n, t in start.items()} | dict(
                zip(moving, leaves, strict=True)
            )
            return function(bound.pop("x"), bound)

        return gradients(of_leaves, [start[n] for n in moving], case.seed)

    def ours(x: Tensor, operands: dict[str, Tensor]) -> Tensor:
        result: Tensor = package.apply(x, **operands, **case.options)
        return result

    def eager(x: Tensor, operands: dict[str, Tensor]) -> Tensor:
        return run_chain(derived.spec, x, operands, numbers, training=training, seed=case.seed)

    def as_computed(x: Tensor, operands: dict[str, Tensor]) -> Tensor:
        return run_chain(
            derived.spec,
            x,
            operands,
            numbers,
            training=training,
            seed=case.seed,
            handed=functools.partial(_rounded, dtype=dtype),
        )

    computed = torch.promote_types(dtype, torch.float32)
    truths = run(eager, torch.float64)
    found, same = run(ours, dtype), run(as_computed, computed)
    with torch.no_grad():
        alone = ours(rounded["x"], {name: rounded[name] for name in case.operands})
    names = ["output", *(f"grad_{n}" for n in moving)]
    results = [*zip(names, found, same, truths, strict=True)]
    results.append(("output without gradients", alone, same[0], truths[0]))
    # The magnitude of the terms that make up a gradient: those of a sum over rows are gradients of
    # elements, and those scale as cotangent * output / x does.
    cotangent = float(_rms(truths[0])) / max(float(_rms(case.x)), 1e-30)
    term = max(float(_rms(truths[1])), cotangent)
    # Where rows know of one another, a gradient is what is left once the means over the batch are subtracted:
    # less than what the functions' errors are relative to. Of two or three rows next to nothing is left, and
    # in float64 truth and result each have their own rounding there.
    trained = [leg.modes[0].saved for leg in derived.legs if training and leg.moded]
    spread = 1
    if any(Kind.COL in v.kind for statistics in trained for v in statistics):
        spread = 32 if dtype == torch.float64 else 2
    errors = []
    for name, got, expected, truth in results:
        added = (case.x.numel() / max(truth.numel(), 1)) ** 0.5
        floor = 0.0 if name.startswith("output") else term * added
        allowed = spread * BOUND_ULP[dtype] + 4 * ulp_error(expected, truth, dtype, floor)
        errors.append(Error(name, ulp_error(got, truth, dtype, floor), allowed))
    return errors


def gradcheck(
    package: Any,
    derived: chain.Chain,
    *,
    training: bool,
    device: str = "cpu",
    case: Case | None = None,
) -> None:
    """Run torch's gradcheck on every derivative that was generated, over x and every operand.

    Args:
        package: the built package.
        derived: its chain.
        training: the mode.
        device: where to run.
        case: the call, by default a random one.

    Raises:
        RuntimeError: where a derivative is not that of finite differences.
    """
    case = case or make_case(
        derived, derived.example_shape(3, 5), training=training, seed=1, device=device
    )
    tensors, names = [case.x, *case.operands.values()], list(case.operands)
    moving = [True, *(o.differentiable for o in derived.operands)]
    leaves = [t.detach().clone().requires_grad_(m) for t, m in zip(tensors, moving, strict=True)]

    def function(*given: Tensor) -> Tensor:
        x, *kept = [g if m else g.clone() for g, m in zip(given, moving, strict=True)]
        operands = dict(zip(names, kept, strict=True))
        result: Tensor = package.apply(x, **operands, **case.options)
        return result

    torch.autograd.gradcheck(function, leaves)
    if derived.spec.order >= 2:
        torch.autograd.gradgradcheck(function, leaves)
    if derived.spec.order >= 3:

        def gradient(*given: Tensor) -> tuple[Tensor, ...]:
            wanted = [g for g, m in zip(given, moving, strict=True) if m]
            return torch.autograd.grad(function(*given).square().sum(), wanted, create_graph=True)

        torch.autograd.gradgradcheck(gradient, leaves)


def check(specs: Sequence[Path], out: Path) -> list[Verdict]:
    """Check the built packages of specs on every device that they are built for.

    Raises:
        UserError: where a spec is wrong.
        ImportError: where a package is not built.
    """
    verdicts = []
    for path in specs:
        derived = pipeline.derive(path)
        package = load_package(derived.spec.name, out)
        devices = ["cpu"]
        if torch.cuda.is_available() and (out / derived.spec.name / "_cuda.so").exists():
            devices.append("cuda")
        for device in devices:
            for training in (False, True) if derived.moded else (False,):
                verdicts += _check_mode(package, derived, training, device)
    return verdicts


def _check_mode(package: Any, derived: chain.Chain, training: bool, device: str) -> list[Verdict]:
    name = derived.spec.name
    mode = " (training)" if training else ""
    verdicts = []
    try:
        gradcheck(package, derived, training=training, device=device)
        verdicts.append(Verdict(name, device, f"gradcheck{mode}", "", "", True))
    except RuntimeError as error:  # how torch says that a gradient is wrong
        first = str(error).splitlines()[0]
        verdicts.append(Verdict(name, device, f"gradcheck{mode}", first, "", False))
    for dtype in BOUND_ULP:
        case = make_case(derived, derived.example_shape(33, 257), training=training, device=device)
        worst = max(compare(package, derived, case, dtype), key=lambda e: e.ulp / e.bound)
        label = f"{str(dtype).removeprefix('torch.')} against float64{mode}"
        text, bound = f"{worst.ulp:.2f} ulp ({worst.name})", f"{worst.bound:.2f} ulp"
        verdicts.append(Verdict(name, device, label, text, bound, worst.within))
    return verdicts
