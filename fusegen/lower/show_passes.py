"""Describes what passes did to a program, for `fusegen show NAME --passes` and `--after PASS`."""

from __future__ import annotations

from collections.abc import Iterable

from fusegen.base.errors import UserError, nearest
from fusegen.lower.part import Part, Parts
from fusegen.lower.passes import PASSES, passed
from fusegen.program import Program, Value, describe

__all__ = ["changes", "programs_after"]


def changes(program: Program, given: Iterable[Value]) -> list[tuple[str, str]]:
    """Return each pass's name and a description of what it did to a program.

    Args:
        program: the program of an operator.
        given: the values that the forward pass saved.
    """
    before: Parts = (Part(program, tuple(given)),)
    found = []
    for each, after in passed(before[0]):
        found.append((each.__name__, _difference(before, after)))
        before = after
    return found


def programs_after(program: Program, given: Iterable[Value], name: str) -> list[Program]:
    """Return the programs after the pass with this name.

    Raises:
        UserError: no pass has this name.
    """
    names = [each.__name__ for each in PASSES]
    if name not in names:
        listed = ", ".join(names)
        raise UserError(f"there is no pass {name!r}{nearest(name, names)} (the passes: {listed})")
    parts = next(
        after for each, after in passed(Part(program, tuple(given))) if each.__name__ == name
    )
    return [part.program for part in parts]


def _difference(before: Parts, after: Parts) -> str:
    """Describe in one line how parts differ."""
    said = []
    if len(after) != len(before):
        said.append("cut into " + ", ".join(part.program.name for part in after))
    fixed = {name for part in after for name in part.fixed}
    if fixed - {name for part in before for name in part.fixed}:
        said.append(f"the same bits everywhere: {_listed(sorted(fixed))}")
    had, has = (_values(parts) for parts in (before, after))
    names = {line.partition(":")[0] for line in had}
    new = [line for line in has if line not in had]
    made = [line for line in new if line.partition(":")[0] not in names]
    changed = [line.partition(":")[0] for line in new if line.partition(":")[0] in names]
    said += [f"new {line}" for line in made[:3]]
    if len(made) > 3:
        said.append(f"and {len(made) - 3} more")
    if changed:
        said.append(f"changed {_listed(changed)}")
    return "; ".join(said) or "nothing"


def _values(parts: Parts) -> dict[str, None]:
    """Return one line per value of some parts."""
    return {describe(v): None for part in parts for v in part.program.nodes(part.given)}


def _listed(names: list[str]) -> str:
    """Return up to four names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
