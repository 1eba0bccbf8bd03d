"""The dims of what steps start from, and those that a step may take after a product amid other steps."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.spec.chains import start_of_chain
from fusegen.spec.cut import CUT, START
from fusegen.spec.keys import OF
from fusegen.spec.model import INPUT, Step
from fusegen.spec.yaml import Document, Place

__all__ = ["check_after_product", "dims_after", "dims_before"]


def check_after_product(
    document: Document, place: Place, step: Step, before: Sequence[Step], dims: int
) -> None:
    """Refuse dim 1 of a product that has as many dims as x: there it would be the last of [rows, cols].

    Args:
        document: the spec.
        place: the step's place in it.
        step: the step.
        before: the steps before it.
        dims: the number of dims that the spec states, or 0.

    Raises:
        SpecError: the step takes it.
    """
    names = step.op.dims if step.op else ("dim",)
    named = [step.attributes.get(name) for name in (*names, *(["dim"] if step.split else []))]
    if dims >= 3 and not step.dims and 1 in named and all(map(_keeps_dims, before)):
        message = (
            f"after a product a step takes the last dim alone, dim -1, and dim 1 is not the last of {dims}: "
            "make a spec of its own of what follows the product"
        )
        raise document.error(place, message)


def _keeps_dims(step: Step) -> bool:
    """Whether a step's value surely has as many dims as x."""
    op = step.op
    if op is None or op in (CUT, START):
        return step.dims >= 3 or all(factor.is_step for factor in step.factors.values())
    if op.source:  # a product with a weight of its own
        other = op.rank or op.takes_only_x or op.inputs
        return not other and (OF not in step.factors or step.factors[OF].is_step)
    drops = op.over == "channel" or step.attributes.get("reduction", "none") != "none"
    return not drops and bool(step.attributes.get("keepdim", True))


def dims_before(step: Step, before: Sequence[Step]) -> int:
    """Return the number of dims of what a step starts from, or 0 for any: of the values that it names, if it
    is a formula without x. Those of its own chain decide: its dims are theirs, and others are operands."""
    if step.takes_x or not before:
        return step.dims
    found = {INPUT: before[0].dims, **{other.label: dims_after(other) for other in before}}
    found |= {part: other.dims for other in before for part in other.parts}
    named = (*step.mentions, *(name for name in step.tensors if name == INPUT))
    chain = before[start_of_chain(before, len(before) - 1) :]
    own = {name for other in chain for name in other.names} if chain[0].is_source else {*named}
    named = tuple(name for name in named if name in own) or named
    return max((found[name] for name in named), default=step.dims)


def dims_after(step: Step) -> int:
    """Return the number of dims of what the next step starts from, or 0 for any."""
    if step.dims < 3 or step.op is None or step.indexes:
        return step.dims
    if step.op.over == "channel":
        return step.dims - 1
    if step.attributes.get("keepdim", True):
        return step.dims
    named = [step.attributes[name] for name in step.op.dims]
    dropped = sum(len(d) if isinstance(d, tuple) else d is not None for d in named)
    return step.dims - dropped
