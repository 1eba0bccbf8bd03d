"""An operator as a differentiable function: in plain eager, under transforms, and in forward mode.

The backward of operator k is operator k + 1, called like any other. So a derivative of any order is exact or
refused. What is saved are the inputs, or an output from which a derivative follows as well, and the row
statistics. The derived programs differentiate through the statistics symbolically.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fusegen.runtime.absent import instead
from fusegen.runtime.batching import batched
from fusegen.runtime.forward_mode import push
from fusegen.runtime.operators import (
    BoundOperator,
    as_tuple,
    bits_of,
    existing,
)
from fusegen.runtime.saved_tensors import kept_tensors, with_unread, without_unread

_is_compiling = torch.compiler.is_compiling
_is_transformed = torch._C._are_functorch_transforms_active
_is_grad_enabled = torch.is_grad_enabled


def call(
    operator: BoundOperator,
    args: tuple[Any, ...],
    *,
    origins: Sequence[Tensor] = (),
    value_alone: bool = False,
    seen: Callable[[Any], None] | None = None,
) -> Any:
    """Call an operator, differentiably in its tensors, and return its outputs.

    With `value_alone` the outputs of the forward may lack its statistics, which are not stored if no gradient
    is needed. `seen` is called with the outputs. `origins` are the tensors in whose place a backward takes an
    output of the forward: forward mode wants their tangents.

    Plain eager takes a short Function (8 µs). Under a transform of torch.func, or in forward mode, a Function
    with all rules is used (22 µs). Everything else (compilers, tensor subclasses, dispatch modes) sees the
    operator, which has its own rules (registration.py).
    """
    if seen is not None:
        return _called_and_seen(operator, args, seen)
    if _is_compiling():
        return operator.overload(*args)
    if _is_transformed() or forward_ad._current_level >= 0:
        if _functionalized():
            return operator.dispatch(args)
        return _Transformable.apply(operator, len(origins), *origins, *args)
    if _is_grad_enabled():
        for tensor in args[: operator.count]:
            if tensor.requires_grad:
                if operator.is_plain(args):
                    return (_apply_value if value_alone else _apply)(operator, *args)
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


def remember(
    ctx: Any,
    operator: BoundOperator,
    args: Sequence[Any],
    out: Any,
    origins: Sequence[Tensor] = (),
    *,
    all_tensors: bool = True,
) -> Sequence[Any]:
    """Save what the derivatives of a call need, and return it.

    Without `all_tensors` those are left out of which the backward reads no number.
    """
    statistics, extras = operator.saved(args, out)
    seed = extras[: operator.random]
    ctx.numbers, ctx.origins = extras[operator.random :], len(origins)
    kept: Sequence[Any] = kept_tensors(operator.kept, args[: operator.count], out)
    if not all_tensors:
        kept = without_unread(operator.spared, kept)
    saved = (*kept, *statistics, *seed, *origins)
    ctx.save_for_backward(*saved)
    return saved


def mark_outputs(ctx: Any, operator: BoundOperator, out: Any) -> None:
    """Tell autograd that the statistics of a forward get no gradient, and that it should pass on None.

    Otherwise torch would fill a tensor of zeros for each of them, and for each output from which nothing is
    computed, in a separate kernel. An output alone may have none either: what follows may pass on None.
    """
    if operator.order == 0 and operator.statistics:
        ctx.mark_non_differentiable(*out[len(operator.like) :])
    ctx.set_materialize_grads(False)


def pull(
    ctx: Any, operator: BoundOperator, cotangents: Sequence[Tensor | None]
) -> Sequence[Tensor | None]:
    """Return the gradient of each argument of a call, computed by the next operator."""
    given = cotangents[: len(operator.like)]  # the others are those of statistics
    if all(cotangent is None for cotangent in given):  # see mark_outputs
        return [None] * (operator.given_tensors + len(ctx.numbers))
    following, count = operator.following, operator.count
    saved = with_unread(following.unread, ctx.saved_tensors, given)
    outputs = [
        instead(operator, place, given, saved) if cotangent is None else cotangent
        for place, cotangent in enumerate(given)
    ]
    last, numbers = len(saved) - ctx.origins, ctx.numbers
    if following.told and not operator.order:
        numbers = (*numbers, bits_of(given))
    args = (*saved[:count], *outputs, *saved[count:last], *numbers)
    out = as_tuple(call(following, args, origins=() if operator.order else saved[last:]))
    found = existing(out, following.needs, numbers[-1]) if following.needs else out
    taken = operator.given_tensors + len(ctx.numbers)
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
        ctx.set_materialize_grads(False)
        return out[0] if len(operator.like) == 1 else tuple(out[: len(operator.like)])


# `Function.apply` in Python looks for what `is_plain` has excluded, and takes 2 of 9 µs.
_apply = super(torch.autograd.Function, _Eager).apply
_apply_value = super(torch.autograd.Function, _Value).apply


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
    remember(ctx, operator, args, out, all_tensors=False)
    return out


class _Transformable(torch.autograd.Function):
    """An operator under torch.func and in forward mode, at 22 µs per call.

    Its arguments are those of the operator, after its origins and their number.
    """

    @staticmethod
    def forward(operator: BoundOperator, origins: int, *args: Any) -> Any:
        out = operator.run(args[origins:])
        return out if isinstance(out, Tensor) else tuple(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        operator, origins, *given = inputs
        ctx.operator, args = operator, given[origins:]
        own = given[:origins] or [args[place] for place, _ in operator.kept]
        ctx.save_for_forward(*remember(ctx, operator, args, output, own))
        mark_outputs(ctx, operator, output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        before = ctx.origins if ctx.operator.takes else 0
        return None, None, *[None] * before, *pull(ctx, ctx.operator, cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        before = ctx.origins if ctx.operator.takes else 0
        return push(call, ctx, ctx.operator, tangents[2 + before :], tangents[2 : 2 + before])

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], operator: BoundOperator, origins: int, *args: Any
    ) -> Any:
        dims = in_dims[2:]
        return batched(
            lambda of, given: call(
                of, given[: len(given) - origins], origins=given[len(given) - origins :]
            ),
            info.batch_size,
            (*dims[origins:], *dims[:origins]),
            operator,
            (*args[origins:], *args[:origins]),
            origins,
        )
