"""Names of submodules with dots, which say in which containers of the Module they are: `mlp.0.norm`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fusegen.spec.model import Step
from fusegen.spec.names import problem
from fusegen.spec.yaml import Document, Place

__all__ = ["check_containers", "dotted_name", "submodule_problem"]


def submodule_problem(name: str) -> str | None:
    """Return what is wrong with the name of a submodule, or None. In a container it may be a number."""
    first, *parts = name.split(".")
    words = [first, *(part for part in parts if not (part.isascii() and part.isdigit()))]
    wrong = (problem(word, attribute=True) for word in [*words, name.replace(".", "_")])
    return next(filter(None, wrong), None)


def dotted_name(given: Any) -> str:
    """Return the dotted name that a step gives; empty if it gives none."""
    name = given.get("name", "") if isinstance(given, dict) else ""
    return name if "." in name else ""


def check_containers(
    document: Document, places: Sequence[Place], chain: Sequence[Step], declared: Iterable[str]
) -> None:
    """Refuse a submodule within something of the Module that is no container.

    Args:
        document: the spec.
        places: the place of each step in it.
        chain: the steps.
        declared: the names of arguments and operands.

    Raises:
        SpecError: if a dotted name begins with the name of a submodule, an operand or an argument.
    """
    taken = {*(step.place for step in chain if step.op and step.op.submodule), *declared}
    for place, step in zip(places, chain, strict=True):
        parts = step.dotted.split(".")
        for count in range(1, len(parts)):
            outer = ".".join(parts[:count])
            if outer in taken:
                message = f"{step.dotted!r} cannot be a name here: {outer!r} is something else"
                raise document.error((*place, "name"), message)
