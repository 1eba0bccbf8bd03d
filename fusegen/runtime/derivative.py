"""An operator as a differentiable function: in plain eager, under transforms, and in forward mode.

The backward of operator k is operator k + 1, called like any other. So a derivative of any order is exact or
refused. Only the inputs are saved, and the row statistics computed from them. The derived programs
differentiate through the statistics symbolically.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from fusegen.runtime.batching import batched
from fusegen.runtime.operators import BoundOperator, as_tuple

_is_compiling = torch.compiler.is_compiling
_is_transformed = torch._C._are_functorch_transforms_active
_is_grad_enabled = torch.is_grad_enabled


def call(
    operator: BoundOperator,
    args: tuple[Any, ...],
    *,
    value_alone: bool = False,
    seen: Callable[[Any], None] | None = None,
) -> Any:
    """Call an operator, differentiably in its tensors, and return its outputs.

    With `value_alone` the outputs of the forward may lack its statistics, which are not stored if no gradient
    is needed. `seen` is called with the outputs.

    Plain eager takes a short Function (8 µs). Under a transform of torch.func, or in forward mode, a Function
    with all rules is used (22 µs). Everything else (compilers, tensor subclasses, dispatch modes) sees the
    operator, which has its own rules (registration.py).
    """
    if seen is not None:
        return _called_and_seen(operator, args, seen)
    if _is_compiling():
        return operator.overload(*args)
    if _is_transformed() or forward_ad._current_level >= 0:
        return (
            operator.dispatch(args) if _functionalized() else _Transformable.apply(operator, *args)
        )
    if _is_grad_enabled():
        for tensor in args[: operator.count]:
            if tensor.requires_grad:
                if operator.is_plain(args):
                    return (_Value if value_alone else _Eager).apply(operator, *args)
                return operator.dispatch(args)
    return operator.run(args, value_alone=value_alone)


def _functionalized() -> bool:
    """Whether the innermost transform is `torch.func.functionalize`, which has no rule for Functions."""
    if not _is_transformed():
        return False
    functorch = torch._C._functorch
    innermost = functorch.peek_interpreter_stack()
    return innermost is not None and innermost.key() == functorch.TransformType.Functionalize


def _called_and_seen(
    operator: BoundOperator, args: tuple[Any, ...], seen: Callable[[Any], None]
) -> Any:
    """Call an operator, and pass its outputs to `seen` before autograd saves tensors.

    A checkpoint recomputes a call only up to the last saved tensor. Anything after that would happen in the
    first call only.
    """
    recorded = not (_is_compiling() or _is_transformed() or forward_ad._current_level >= 0)
    if recorded and _is_grad_enabled() and operator.is_plain(args):
        return _Seen.apply(operator, seen, *args)
    out = call(operator, args)
    seen(out)
    return out


def remember(ctx: Any, operator: BoundOperator, args: Sequence[Any], out: Any) -> Sequence[Tensor]:
    """Save what the derivatives of a call need, and return its tensors."""
    statistics, extras = operator.saved(args, out)
    seed = extras[: operator.random]
    ctx.numbers = extras[operator.random :]
    saved = (*args[: operator.count], *statistics, *seed)
    ctx.save_for_backward(*saved)
    return saved


def mark_outputs(ctx: Any, operator: BoundOperator, out: Any) -> None:
    """Tell autograd that the statistics of a forward get no gradient, and that None means zeros.

    Otherwise torch would fill a tensor of zeros for each of them, and for each output from which nothing is
    computed, in a separate kernel.
    """
    if operator.order == 0 and operator.statistics:
        ctx.mark_non_differentiable(*out[len(operator.like) :])
    if operator.returned > 1:
        ctx.set_materialize_grads(False)


def pull(
    ctx: Any, operator: BoundOperator, cotangents: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    """Return the gradient of each argument of a call, computed by the next operator."""
    given = cotangents[: len(operator.like)]  # the others are those of statistics
    if all(cotangent is None for cotangent in given):  # for zeros; see mark_outputs
        return [None] * (operator.given_tensors + len(ctx.numbers))
    following, saved, count = operator.following, ctx.saved_tensors, operator.count
    outputs = [
        _zeros(operator, place, saved) if cotangent is None else cotangent
        for place, cotangent in enumerate(given)
    ]
    args = (*saved[:count], *outputs, *saved[count:], *ctx.numbers)
    found = as_tuple(call(following, args))
    taken = len(args) - len(outputs) - (0 if operator.order else operator.statistics)
    if following.leads:
        return (*found, *[None] * (taken - len(found)))
    gradients: list[Tensor | None] = [None] * taken
    for place, gradient in zip(following.like, found, strict=True):
        gradients[place] = gradient
    for place in following.still:
        gradients[place] = torch.zeros_like(saved[place])
    for place, source in following.shared:
        gradients[place] = gradients[source] if source < count else given[source - count]
    return gradients


def push(ctx: Any, operator: BoundOperator, tangents: Sequence[Tensor | None]) -> Any:
    """Return the tangent of each output of a call.

    For the forward y = f(x), the backward J'c is linear in c. Its derivative by c, along v, is J v, which the
    double backward returns. For a derivative, operator k + 1 is the gradient of the scalar s = <operator k,
    u> by the inputs of operator k. The derivative of this gradient along v is the Hessian of s times v. A
    Hessian is symmetric, so operator k + 2 computes it as the gradient of <operator k + 1, v>. s is linear in
    u, so a tangent of u replaces u.
    """
    tensors, statistics, extras = _recall(ctx, operator)
    following = operator.following
    along = [_or_zeros(t, x) for t, x in zip(tangents[: operator.count], tensors, strict=True)]
    if operator.order == 0:
        last = following.following
        unused = [_zeros(operator, n, tensors) for n in range(len(operator.like))]
        moved = _along_outputs(following, along, tangents)
        found = _call(last, (*tensors, *unused, *moved), statistics, extras)
        pushed = [
            found.get(operator.count + number, torch.zeros_like(cotangent))
            for number, cotangent in enumerate(unused)
        ]
        # The gradient of some inputs is a cotangent: the double backward does not have that term.
        for place, source in following.shared:
            if source >= operator.count and tangents[place] is not None:
                pushed[source - operator.count] = pushed[source - operator.count] + along[place]
        return (*pushed, *([None] * operator.statistics)) if operator.returned > 1 else pushed[0]
    base = operator.count - operator.cotangents
    moved = _along_outputs(operator, along, tangents)
    found = _call(following, (*tensors, *moved), statistics, extras)
    linear: dict[int, Tensor] = {}
    if any(t is not None for t in tangents[base : operator.count]):
        linear = _call(operator, (*tensors[:base], *along[base:]), statistics, extras)
    pushed = []
    for place in operator.like:
        parts = [part[place] for part in (found, linear) if place in part]
        pushed.append(sum(parts[1:], parts[0]) if parts else torch.zeros_like(tensors[place]))
    return tuple(pushed) if operator.returned > 1 else pushed[0]


def _along_outputs(
    derivative: BoundOperator, along: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> list[Tensor]:
    """Return the tangent for each output of a derivative: of all inputs whose gradient that output is."""
    moved = {place: along[place] for place in derivative.like}
    for place, source in derivative.shared:
        if source in moved and tangents[place] is not None:
            moved[source] = moved[source] + along[place]
    return list(moved.values())


def _call(
    operator: BoundOperator,
    tensors: Sequence[Tensor],
    statistics: Sequence[Tensor],
    extras: Sequence[Any],
) -> dict[int, Tensor]:
    """Return the outputs of a derivative, by the index of the input that each belongs to."""
    out = call(operator, operator.arguments(tensors, statistics, extras))
    found = dict(zip(operator.like, as_tuple(out), strict=True))
    for place, source in operator.shared:
        found[place] = found[source] if source in found else tensors[source]
    return found


def _zeros(operator: BoundOperator, place: int, tensors: Sequence[Tensor]) -> Tensor:
    """Return an output of zeros.

    One of the activation's size is a row of zeros, or a matrix where dims come after the columns, expanded to
    all rows. So next to nothing is filled, and kernels read it from a cache.
    """
    x = tensors[0]
    shape, dtype = operator.shape(place, tensors), operator.dtype(place, x.dtype)
    across = len(shape) + operator.columns[0]
    if operator.output_kinds[place] not in ("full", "half") or across < 1 or _has_rules(x):
        return x.new_zeros(shape, dtype=dtype)
    like = tensors[operator.like[place]]
    if like.shape == shape and not like.is_contiguous():  # in its memory format
        first = torch.zeros_like(like[(slice(1),) * across], dtype=dtype)
    else:
        first = x.new_zeros((*[1] * across, *shape[across:]), dtype=dtype)
    return first.expand(shape)


def _has_rules(x: Tensor) -> bool:
    """Return whether a tensor is a subclass around others, such as a DTensor, with rules of its own."""
    return type(x) is not Tensor and is_traceable_wrapper_subclass(x)


def _or_zeros(tangent: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tangent is None else tangent


def _recall(
    ctx: Any, operator: BoundOperator
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Any]]:
    """Return what `remember` saved: tensors, statistics, and the seed with the numbers."""
    saved = ctx.saved_tensors  # read once: checkpointing recomputes them at each access
    after = operator.count + operator.statistics
    return saved[: operator.count], saved[operator.count : after], (*saved[after:], *ctx.numbers)


class _Eager(torch.autograd.Function):
    """An operator in plain eager."""

    @staticmethod
    def forward(ctx: Any, operator: BoundOperator, *args: Any) -> Any:
        out = _recorded(ctx, operator, args)
        mark_outputs(ctx, operator, out)
        return out if isinstance(out, Tensor) else tuple(out)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return None, *pull(ctx, ctx.operator, cotangents)


class _Value(_Eager):
    """The forward in plain eager if its statistics are not needed: each output costs a microsecond."""

    @staticmethod
    def forward(ctx: Any, operator: BoundOperator, *args: Any) -> Any:
        out = as_tuple(_recorded(ctx, operator, args))
        if len(operator.like) > 1:
            ctx.set_materialize_grads(False)
        return out[0] if len(operator.like) == 1 else tuple(out[: len(operator.like)])


class _Seen(_Eager):
    """The forward in plain eager if `seen` wants its outputs before they are saved."""

    @staticmethod
    def forward(ctx: Any, operator: BoundOperator, seen: Callable[[Any], None], *args: Any) -> Any:
        out = _recorded(ctx, operator, args)
        mark_outputs(ctx, operator, out)
        seen(out)
        return out if isinstance(out, Tensor) else tuple(out)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return None, *_Eager.backward(ctx, *cotangents)


def _recorded(ctx: Any, operator: BoundOperator, args: tuple[Any, ...]) -> Any:
    """Run an operator on plain tensors, and save what its derivatives need."""
    out = operator.run_plain(args)
    ctx.operator = operator
    remember(ctx, operator, args, out)
    return out


class _Transformable(torch.autograd.Function):
    """An operator under torch.func and in forward mode, at 22 µs per call."""

    @staticmethod
    def forward(operator: BoundOperator, *args: Any) -> Any:
        out = operator.run(args)
        return out if isinstance(out, Tensor) else tuple(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        operator, *args = inputs
        ctx.operator = operator
        ctx.save_for_forward(*remember(ctx, operator, args, output))
        mark_outputs(ctx, operator, output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return None, *pull(ctx, ctx.operator, cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        return push(ctx, ctx.operator, tangents[1:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], operator: BoundOperator, *args: Any) -> Any:
        return batched(call, info.batch_size, in_dims[1:], operator, args)
