"""Names of submodules and parameters with dots, which say in which containers of the Module they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusegen.spec.model import Argument, Operand, Ref, Step
from fusegen.spec.names import problem
from fusegen.spec.yaml import Document, Place

__all__ = ["check_containers", "dotted_name", "submodule_problem"]


def submodule_problem(name: str) -> str | None:
    """Return what is wrong with the name of a submodule or parameter, or None; containers take numbers."""
    first, *parts = name.split(".")
    words = [first, *(part for part in parts if not (part.isascii() and part.isdigit()))]
    wrong = (problem(word, attribute=True) for word in [*words, name.replace(".", "_")])
    return next(filter(None, wrong), None)


def dotted_name(given: Any) -> str:
    """Return the dotted name that a step gives; empty if it gives none."""
    name = given.get("name", "") if isinstance(given, dict) else ""
    return name if "." in name else ""


def check_containers(
    document: Document,
    places: Sequence[Place],
    chain: Sequence[Step],
    declared: Sequence[Argument | Operand],
) -> None:
    """Refuse a submodule or a parameter within something of the Module that is no container.

    Args:
        document: the spec.
        places: the place of each step in it.
        chain: the steps.
        declared: the arguments and operands.

    Raises:
        SpecError: if a dotted name begins with the name of a submodule, an operand or an argument, or a name
            is another's.
    """
    dotted = [((*place, "name"), step.dotted) for place, step in zip(places, chain, strict=True)]
    given = [o for o in declared if isinstance(o, Operand)]
    dotted += [(("operands", o.name, "name"), o.dotted) for o in given if o.dotted]
    taken = {*(step.place for step in chain if step.op and step.op.submodule)}
    taken |= {one.place if isinstance(one, Operand) else one.name for one in declared}
    kept = {*(step.place for step in chain if step.op and step.op.submodule)}
    kept |= {o.name for o in given if o.init is not None and not o.dotted}
    kept |= {name for step in chain for name in _numbers_of(step)}
    seen: set[str] = set()
    for operand in given:
        if operand.dotted in kept:
            message = (
                f"{operand.dotted!r} cannot be a name here: Module keeps something else under it"
            )
            raise document.error(("operands", operand.name, "name"), message)
    for place, name in dotted:
        parts = name.split(".")
        for count in range(1, len(parts)):
            outer = ".".join(parts[:count])
            if outer in taken:
                message = f"{name!r} cannot be a name here: {outer!r} is something else"
                raise document.error(place, message)
        inside = next((other for other in taken if other.startswith(f"{name}.")), "")
        if name and (name in seen or inside):
            message = f"{name!r} cannot be a name here: {inside or name!r} is something else"
            raise document.error(place, message)
        seen.add(name)


def _numbers_of(step: Step) -> list[str]:
    """Return the arguments that a step uses as numbers, which the Module may keep under their names."""
    given = (*step.operands.values(), *step.attributes.values())
    return [value.name for value in given if isinstance(value, Ref) and value.is_argument]
