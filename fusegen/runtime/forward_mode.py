"""The rules of an operator in forward mode: the tangents of its outputs, from those of its inputs.

No operator is generated for them. The derivative of a derivative gives them, since it is linear in its
cotangent, and since a Hessian is symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fusegen.runtime.absent import zeros
from fusegen.runtime.operators import BoundOperator, as_tuple, bits_of, existing

__all__ = ["Caller", "push"]

#: Calls an operator, by way of an output in the place of its origins, if it has any (`derivative.call`).
Caller = Callable[..., Any]


def push(
    call: Caller,
    ctx: Any,
    operator: BoundOperator,
    tangents: Sequence[Tensor | None],
    of_origins: Sequence[Tensor | None],
) -> Any:
    """Return the tangent of each output of a call.

    For the forward y = f(x), the backward J'c is linear in c. Its derivative by c, along v, is J v, which the
    double backward returns. For a derivative, operator k + 1 is the gradient of the scalar s = <operator k,
    u> by the inputs of operator k. The derivative of this gradient along v is the Hessian of s times v. A
    Hessian is symmetric, so operator k + 2 computes it as the gradient of <operator k + 1, v>. s is linear in
    u, so a tangent of u replaces u.

    A backward that takes y in the place of x is still the gradient of s by x: v is the tangent of x, its
    origin. The double backward returns the gradient of <J'u, v> by y, and the backward turns that into the
    one by x.

    Args:
        call: calls an operator.
        ctx: the context of the call.
        operator: the operator.
        tangents: of the operator's arguments.
        of_origins: the tangents of its origins.
    """
    tensors, statistics, extras, origins = _recall(ctx, operator)
    along = [_or_zeros(t, x) for t, x in zip(tangents[: operator.count], tensors, strict=True)]
    if operator.order == 0:
        return _push_forward(call, operator, (tensors, statistics, extras), along, tangents)
    known = [*tangents]
    for (place, _), tangent in zip(
        operator.takes, of_origins or [None] * len(operator.takes), strict=True
    ):
        known[place], along[place] = tangent, _or_zeros(tangent, tensors[place])
    following, base = operator.following, operator.count - operator.cotangents
    moved = _along_outputs(operator, along, known)
    found = _call(call, following, (*tensors, *moved), statistics, extras)
    parts = [found]
    if operator.takes and operator.takes[0][0] in found:
        place, output = operator.takes[0]
        cotangents = [torch.zeros_like(t) for t in tensors[base:]]
        cotangents[output] = found.pop(place)
        given = (*tensors[:base], *cotangents)
        told = _told(operator, extras, 1 << output)
        parts.append(_call(call, operator, given, statistics, told, origins))
    if any(t is not None for t in tangents[base : operator.count]):
        given = (*tensors[:base], *along[base:])
        present = tangents[base : operator.count]
        told = _told(operator, extras, bits_of(present)) if operator.order == 1 else extras
        parts.append(_call(call, operator, given, statistics, told, origins))
    pushed = []
    for place in operator.like:
        added = [part[place] for part in parts if place in part]
        pushed.append(sum(added[1:], added[0]) if added else torch.zeros_like(tensors[place]))
    return tuple(pushed) if operator.returned > 1 else pushed[0]


def _push_forward(
    call: Caller,
    operator: BoundOperator,
    saved: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Any]],
    along: Sequence[Tensor],
    tangents: Sequence[Tensor | None],
) -> Any:
    """Return the tangent of each output of a forward."""
    tensors, statistics, extras = saved
    following = operator.following
    unused = [zeros(operator, n, tensors) for n in range(len(operator.like))]
    moved = _along_outputs(following, along, tangents)
    told = (*extras, (1 << len(unused)) - 1) if following.told else extras  # J v of every output
    found = _call(call, following.following, (*tensors, *unused, *moved), statistics, told)
    pushed = [
        found.get(operator.count + number, torch.zeros_like(cotangent))
        for number, cotangent in enumerate(unused)
    ]
    # The gradient of some inputs is a cotangent: the double backward does not have that term.
    for place, source in following.shared:
        if source >= operator.count and tangents[place] is not None:
            pushed[source - operator.count] = pushed[source - operator.count] + along[place]
    return (*pushed, *([None] * operator.statistics)) if operator.returned > 1 else pushed[0]


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
    call: Caller,
    operator: BoundOperator,
    tensors: Sequence[Tensor],
    statistics: Sequence[Tensor],
    extras: Sequence[Any],
    origins: Sequence[Tensor] = (),
) -> dict[int, Tensor]:
    """Return the outputs of a derivative, by the index of the input that each belongs to."""
    out = as_tuple(call(operator, operator.arguments(tensors, statistics, extras), origins=origins))
    some = existing(out, operator.needs, extras[-1]) if operator.needs else out
    found = {n: t for n, t in zip(operator.like, some, strict=True) if t is not None}
    for place, source in operator.shared:
        if source in found or source not in operator.like:
            found[place] = found[source] if source in found else tensors[source]
    return found


def _told(operator: BoundOperator, extras: Sequence[Any], present: int) -> Sequence[Any]:
    """Return the extras of a derivative that is told other cotangents."""
    return (*extras[:-1], present) if operator.told else extras


def _or_zeros(tangent: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tangent is None else tangent


def _recall(
    ctx: Any, operator: BoundOperator
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Any], Sequence[Tensor]]:
    """Return what `remember` saved: tensors, statistics, the seed with the numbers, and origins."""
    saved = ctx.saved_tensors  # read once: checkpointing recomputes them at each access
    after, last = operator.count + operator.statistics, len(saved) - ctx.origins
    return (
        saved[: operator.count],
        saved[operator.count : after],
        (*saved[after:last], *ctx.numbers),
        saved[last:],
    )
