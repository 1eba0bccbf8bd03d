"""What a gradient reaches from some values of a chain: not what is only compared or detached."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import sympy as sp

from fusegen.atoms import detach, straight_through
from fusegen.spec.factor import OF
from fusegen.spec.model import Ref, Step

__all__ = ["reached_from"]


def reached_from(steps: Sequence[Step], values: Collection[str]) -> set[str]:
    """Return the names of what autograd reaches from some values, themselves included: steps and tensors.

    Args:
        steps: consecutive steps. What the first of them starts from is called `x`.
        values: the labels of those whose gradients are given.
    """
    reached = set(values)
    for place in range(len(steps) - 1, -1, -1):
        step = steps[place]
        before = next((s.label for s in reversed(steps[:place]) if not s.indexes), "x")
        if reached.intersection(step.parts):
            reached.add(step.factors[OF].name if OF in step.factors else before)
        if step.label in reached:
            reached.update(_followed(step, before))
    return reached


def _followed(step: Step, before: str) -> Iterator[str]:
    """Yield the names that a step's value depends on, but for what is detached, shown or compared.

    Args:
        step: the step.
        before: what the value before it is called.
    """
    yield from (factor.name for factor in step.factors.values())
    before = before if OF not in step.factors else step.factors[OF].name
    expr = step.expr.replace(detach, lambda _: sp.Dummy(real=True))
    expr = expr.replace(straight_through, lambda _, moving: moving)
    expr = expr.replace(
        sp.Piecewise, lambda *cases: sp.Add(*(sp.Dummy(real=True) * value for value, _ in cases))
    )
    for symbol in expr.free_symbols:
        value = step.operand(symbol.name) if step.op else None
        name = value.name if isinstance(value, Ref) else symbol.name
        yield before if name in ("x", *step.split) else name
