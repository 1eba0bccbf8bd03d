"""Steps that compute each element by itself."""

from __future__ import annotations

from fusegen.atoms import COLUMN, HALF_FUNCTIONS, ROW_FUNCTIONS, Rng, Total
from fusegen.atoms.constants import parts
from fusegen.spec.model import Step

__all__ = ["by_element"]


def by_element(step: Step) -> bool:
    """Whether each element of a step's value is computed from one element of what reaches it, in one way."""
    op = step.op
    if op is not None and op.source:
        return True
    if step.split or (op is not None and (op.trained or op.groups or op.over)):
        return False
    if COLUMN in step.expr.free_symbols:
        return False
    whole = (*ROW_FUNCTIONS, *HALF_FUNCTIONS, Rng, Total)
    return not any(isinstance(part, whole) for part in parts(step.expr))
