"""A formula of operands alone, such as `swish(c)`: a chain starts from one of them, which is then its x."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.program import Kind
from fusegen.spec.scope import Names
from fusegen.spec.yaml import Place

__all__ = ["start_of_formula"]


def start_of_formula(names: Names, place: Place, text: str, used: Sequence[str]) -> str:
    """Return the operand that a chain starts from for a formula without x and values of steps.

    Args:
        names: the spec's names.
        place: the place of the step.
        text: the formula, for messages.
        used: the names in it.

    Raises:
        SpecError: there is none, or the step is the first.
    """
    here = [names.operands[name] for name in used if name in names.operands]
    numbers = [o for o in here if not (o.integer or o.mask or o.whole)]
    found = [o.name for o in numbers if o.factor or o.dims is not None or o.kind is Kind.FULL]
    message = f"the formula {text!r} does not depend on x, nor on the value of a step"
    if not found:
        if numbers:
            name = numbers[0].name
            message += f": to start from {name}, declare it with `dims`, or of kind full or factor"
        raise names.document.error(place, message)
    if place[1] == 0:
        message += (
            f", from which the first step starts: to start from {found[0]}, put a step of x before it, and "
            "name that"
        )
        raise names.document.error(place, message)
    factors = [o.name for o in here if o.factor and o.name != found[0]]
    if factors:
        message = (
            f"the formula {text!r} starts from {found[0]}, and {factors[0]}, of kind factor, has any shape: "
            "declare it of another kind"
        )
        raise names.document.error(place, message)
    return found[0]
