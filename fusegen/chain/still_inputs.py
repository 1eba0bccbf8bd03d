"""Which tensors have a gradient that is 0 everywhere, as that of `w` in `sign(x * w)`: torch has zeros.

No program computes such a gradient. What is reached through `detach` or a condition alone has none in torch
either.
"""

from __future__ import annotations

from fusegen.chain.mode import Mode
from fusegen.chain.segment import Segment
from fusegen.spec.gradient_paths import reached_from
from fusegen.spec.model import INPUT

__all__ = ["still_inputs"]


def still_inputs(segment: Segment, mode: Mode) -> tuple[int, ...]:
    """Return the places, among the tensors of a mode's forward, of those whose gradient is 0 everywhere."""
    forward, *derivatives = mode.programs
    if not derivatives:
        return ()
    own = dict(
        zip(derivatives[0].tensors, forward.tensors, strict=False)
    )  # a kept value has x's place
    moved = {own[output.like.tensor] for output in derivatives[0].returned.values()}
    moved |= {own[gradient.like.tensor] for gradient in derivatives[0].shared.values()}
    moving = {i.tensor for i in forward.inputs if i.differentiable}
    if moving <= moved:
        return ()
    named = {operand.code: operand.name for operand in segment.operands}
    roots = {segment.steps[-1].label, *segment.span.returned} - segment.span.still
    reached = reached_from(segment.steps, roots)
    if INPUT not in named.values():
        reached |= {"x"} if INPUT in reached else set()
    return tuple(
        place
        for place, tensor in enumerate(forward.tensors)
        if tensor in moving - moved and named.get(tensor, tensor) in reached
    )
