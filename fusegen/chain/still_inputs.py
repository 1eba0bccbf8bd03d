"""Which tensors have a gradient that is 0 everywhere, as that of `w` in `sign(x * w)`: torch has zeros.

No program computes such a gradient. What is reached through `detach` or a condition alone has none in torch
either.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from fusegen.atoms import detach
from fusegen.chain.segment import Mode, Segment
from fusegen.spec.model import INPUT, Ref, Step

__all__ = ["still_inputs"]


def still_inputs(segment: Segment, mode: Mode) -> tuple[int, ...]:
    """Return the places, among the tensors of a mode's forward, of those whose gradient is 0 everywhere."""
    forward, *derivatives = mode.programs
    if not derivatives:
        return ()
    moved = {output.like.tensor for output in derivatives[0].returned.values()}
    moved |= {gradient.like.tensor for gradient in derivatives[0].shared.values()}
    moving = {i.tensor for i in forward.inputs if i.differentiable}
    if moving <= moved:
        return ()
    named = {operand.code: operand.name for operand in segment.operands}
    reached = _reached(segment.steps, segment.span.returned)
    return tuple(
        place
        for place, tensor in enumerate(forward.tensors)
        if tensor in moving - moved and named.get(tensor, tensor) in reached
    )


def _reached(steps: Sequence[Step], returned: Sequence[str]) -> set[str]:
    """Return the names of what autograd reaches from the values that a segment returns.

    `x` is what the segment starts from.
    """
    needed, reached = {steps[-1].label, *returned}, set[str]()
    own = {step.label for step in steps}
    for place in range(len(steps) - 1, -1, -1):
        if steps[place].label not in needed:
            continue
        for name in _followed(steps[place]):
            before = next((s.label for s in reversed(steps[:place]) if not s.indexes), "x")
            read = before if name == "x" else "x" if name == INPUT else name
            (needed if read in own else reached).add(read)
    return reached


def _followed(step: Step) -> set[str]:
    """Return the names that a step's formula depends on, but for what is detached and compared."""
    expr = step.expr.replace(detach, lambda _: sp.Dummy(real=True))
    expr = expr.replace(
        sp.Piecewise, lambda *cases: sp.Add(*(sp.Dummy(real=True) * value for value, _ in cases))
    )
    found = set()
    for symbol in expr.free_symbols:
        value = step.operand(symbol.name) if step.op else None
        found.add(value.name if isinstance(value, Ref) else symbol.name)
    return found
