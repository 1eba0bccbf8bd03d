"""Compares a case's results with float64 before it is timed; the measure is the error of eager torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.tools.bench.subjects import Set
from fusegen.tools.check.reference import run_chain

#: A chain as a function of x and the operands.
Function = Callable[..., Tensor]

#: How many eps of an element, and of a typical one, may always be wrong: a rounding, and in float32 functions
#: of 4 ulp and sums.
_EPS = {torch.float32: 16.0, torch.bfloat16: 1.0, torch.float16: 1.0}
#: How much larger than eager's a mean error may be, and an element's error than eager's mean error.
_MEAN, _ELEMENT = 4.0, 32.0
#: The share of a gradient's elements that may be far off where eager has none: at a kink, such as relu's, a
#: rounded argument may be on the other side.
_KINKS = 1e-6
_FEW = 4
#: How many times eager torch is called with an x whose elements move by the units in the last place that an
#: element may be wrong by. Where a group's sum has an argument at a kink, all of the group is far off on the
#: other side of it.
_MOVED = 6


@dataclass(frozen=True)
class Errors:
    """A result's error against the reference.

    Args:
        mean: the mean of its elements' absolute errors.
        far: the number of elements whose error is beyond the bound of an element.
        lost: the number of elements that are NaN or infinite where they should not be, or the reverse.
    """

    mean: float
    far: int
    lost: int


def results(function: Function, tensors: Set, *, backward: bool) -> list[Tensor]:
    """Return a function's value and, for a backward, its gradients. What it changes in place is a copy."""
    moving = {id(t) for t in tensors.moving}
    with torch.set_grad_enabled(backward):
        given = [t if id(t) in moving else t.detach().clone() for t in tensors.given]
        value = function(*given)
        found = [value.detach()]
        if backward and value.shape == tensors.cotangent.shape:
            along = tensors.cotangent.to(value.dtype)
            found += torch.autograd.grad(value, tensors.moving, along, materialize_grads=True)
    return found


def wrong(
    chain: Chain,
    tensors: Set,
    numbers: Mapping[str, float],
    ours: Function,
    eager: Function | None,
    *,
    backward: bool,
) -> str | None:
    """Return what is wrong with a function's results, or None.

    Args:
        chain: the chain.
        tensors: what it is called with.
        numbers: its arguments.
        ours: the function.
        eager: the chain in torch, whose error is that of its roundings; None if torch cannot run it.
        backward: whether gradients are compared too.
    """
    truth = _reference(chain, tensors, numbers, backward=backward)
    by_torch = results(eager, tensors, backward=backward) if eager is not None else None
    _leave_nan(truth, tensors)
    got = results(ours, tensors, backward=backward)
    moving = [
        name
        for name, t in zip(_names(chain), tensors.given, strict=True)
        if any(t is m for m in tensors.moving)
    ]
    names = ["the value", *(f"the gradient of {name}" for name in moving)]

    def far_if_moved(place: int, count: Callable[[Tensor], int]) -> int:
        """Return how many of eager torch's elements are far off if x is moved a little, at most."""
        if eager is None or not place:
            return 0
        moved = (results(eager, _moved(tensors, n), backward=True)[place] for n in range(_MOVED))
        return max(map(count, moved))

    for place, (name, found) in enumerate(zip(names, got, strict=False)):
        beside = by_torch[place] if by_torch is not None else None
        if message := _compare(found, truth, place, beside, tensors, far_if_moved):
            return f"{name}: {message}"
    if backward:  # without gradients it may be another operator
        (alone,) = results(ours, tensors, backward=False)
        beside = by_torch[0] if by_torch is not None else None
        if message := _compare(alone, truth, 0, beside, tensors, far_if_moved):
            return f"the value without gradients: {message}"
    return None


def _moved(tensors: Set, seed: int) -> Set:
    """Return the tensors with an x whose elements are moved by a few units in the last place, up or down."""
    x = tensors.given[0]
    up = torch.rand(x.shape, generator=torch.Generator(x.device).manual_seed(seed), device=x.device)
    towards = torch.where(up < 0.5, -math.inf, math.inf).to(x.dtype)
    other = x.detach()
    for _ in range(int(_EPS[x.dtype])):
        other = torch.nextafter(other, towards)
    other.requires_grad_(x.requires_grad)
    given = tuple(other if t is x else t for t in tensors.given)
    return replace(
        tensors, given=given, moving=tuple(other if t is x else t for t in tensors.moving)
    )


def _names(chain: Chain) -> list[str]:
    return ["x", *(operand.name for operand in chain.operands)]


def _reference(
    chain: Chain, tensors: Set, numbers: Mapping[str, float], *, backward: bool
) -> list[Tensor]:
    names = _names(chain)

    # Contiguous: torch 2.13's instance norm of one sample has a wrong gradient if that of its value is
    # channels-last.
    def double(tensor: Tensor) -> Tensor:
        found = tensor.detach().contiguous()
        return found.double() if found.is_floating_point() else found.clone()

    made = {id(t): double(t) for t in tensors.given}
    leaves = [made[id(t)].requires_grad_() for t in tensors.moving]
    given = dict(zip(names, (made[id(t)] for t in tensors.given), strict=True))
    x = given.pop("x")
    with torch.set_grad_enabled(backward):
        value = run_chain(chain.spec, x, given, dict(numbers), training=True)
        assert isinstance(value, Tensor)
        found = [value.detach()]
        if backward:
            cotangent = double(tensors.cotangent)
            found += torch.autograd.grad(value, leaves, cotangent, materialize_grads=True)
    return found


def _leave_nan(truth: Sequence[Tensor], tensors: Set) -> None:
    """Leave NaN in memory that is freed, which the results may get: what is not written is then seen."""
    dtype = tensors.given[0].dtype
    freed = [torch.full_like(t, math.nan, dtype=dtype) for t in truth]
    del freed


def _compare(
    found: Tensor,
    truth: Sequence[Tensor],
    place: int,
    beside: Tensor | None,
    tensors: Set,
    far_if_moved: Callable[[int, Callable[[Tensor], int]], int],
) -> str | None:
    """Return what is wrong with one of the results, or None; `beside` is eager torch's."""
    true, dtype = truth[place], tensors.given[0].dtype
    if found.shape != true.shape:
        return f"shape {list(found.shape)}, not {list(true.shape)}"
    if found.dtype != dtype:
        return f"{found.dtype}, not {dtype}"
    # A gradient may cancel to nothing: its error is then that of the terms, which are as those of grad_x.
    typical = _mean_size(true)
    if place > 1:
        terms = tensors.given[0].numel() / max(true.numel(), 1)
        typical = max(typical, _mean_size(truth[1]) * math.sqrt(terms))
    eps = torch.finfo(dtype).eps
    smallest = 2.0**-24 if dtype is torch.float16 else torch.finfo(dtype).tiny
    always = _EPS[dtype] * eps * typical + smallest
    base = _errors(beside, true, dtype, 0.0, always) if beside is not None else None
    own = _errors(found, true, dtype, base.mean if base else 0.0, always)
    if own.lost > (base.lost if base else 0):
        return f"{own.lost} of {true.numel()} elements are not finite, or are and should not be"
    allowed = _MEAN * (base.mean if base else 0.0) + always
    if not own.mean <= allowed:
        return f"the mean error is {own.mean:.3g}, more than {allowed:.3g}"
    mean = base.mean if base else 0.0

    def count(result: Tensor) -> int:
        return _errors(result, true, dtype, mean, always).far

    far = count(beside) if beside is not None else 0
    few = _FEW + (_KINKS * true.numel() if place else 0.0)
    if own.far > _MEAN * far + few:
        moved = far_if_moved(place, count)
        if own.far > _MEAN * moved + few:
            most = max(far, moved)
            return f"{own.far} of {true.numel()} elements are far off; {most} of eager torch's"
    return None


def _errors(found: Tensor, true: Tensor, dtype: torch.dtype, mean: float, always: float) -> Errors:
    """Return the errors of a result; an element is far off if its error is beyond those that are given."""
    stored = true.to(dtype)
    finite = stored.isfinite() & found.isfinite()
    near_overflow = true.abs() > torch.finfo(dtype).max / 2
    lost = int(((stored.isfinite() != found.isfinite()) & ~near_overflow).sum())
    error = torch.where(finite, (found.double() - true).abs(), 0.0)
    size = torch.where(finite, true.abs(), 0.0)
    bound = _ELEMENT * mean + always + _EPS[dtype] * torch.finfo(dtype).eps * size
    return Errors(float(error.mean()) if error.numel() else 0.0, int((error > bound).sum()), lost)


def _mean_size(tensor: Tensor) -> float:
    finite = torch.where(tensor.isfinite(), tensor.abs(), 0.0)
    return float(finite.mean()) if finite.numel() else 0.0
