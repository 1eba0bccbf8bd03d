"""Verifies the programs that a pass returns: nothing is undefined, no kind is wrong, and no result is lost.

It runs after every pass if FUSEGEN_VERIFY=1 is set in the environment, as in the tests.
"""

from __future__ import annotations

from fusegen.lower.part import Part, Parts
from fusegen.program import Input, Kind, Map, Output, Reduce, Take, Value, arguments, joined

__all__ = ["VerificationError", "verify"]


#: Sources of inputs that every kernel has without an operator's argument.
_OWN = ("extent", "index")


class VerificationError(Exception):
    """A pass returned an invalid program, or one with other results.

    The message names the pass and the value.
    """


def verify(name: str, before: Parts, after: Parts) -> None:
    """Raise an error if a pass broke a program.

    Args:
        name: the pass.
        before: the parts that it was given.
        after: the parts that it returned.

    Raises:
        VerificationError: the pass broke a program.
    """
    for part in after:
        for wrong in _wrong(part):
            raise VerificationError(f"{name}: {part.program.name}: {wrong}")
    for what, had, has in (
        ("outputs", _outputs(before), _outputs(after)),
        ("saved values", _saved(before), _saved(before) & _saved(after)),
        ("fixed values", _fixed(before), _fixed(before) & _fixed(after)),
    ):
        if had != has:
            lost = sorted(map(str, had ^ has))
            raise VerificationError(f"{name}: {before[0].program.name}: other {what}: {lost}")
    if missing := _unwritten(after):
        program = before[0].program.name
        raise VerificationError(f"{name}: {program}: nothing writes the parts {missing}")
    handed: set[str] = set()
    for part in after:  # A part may load what the forward pass saved, and what earlier parts left.
        loaded = {v.name for v in part.given} - {v.name for p in before for v in p.given}
        if loaded - handed:
            raise VerificationError(
                f"{name}: {part.program.name} loads {sorted(loaded - handed)}, which no part leaves before it"
            )
        handed |= {v.name for v in part.program.saved}
        handed |= {o.value.name for o in part.program.outputs.values()}


def _wrong(part: Part) -> list[str]:
    """Return a description of each error in the values of a part."""
    found = []
    names: dict[str, Value] = {}
    for value in part.program.nodes(part.given):
        other = names.setdefault(value.name, value)
        if other is not value:
            found.append(f"two values have the name {value.name}")
        if value in part.given:
            continue
        inputs = part.program.inputs
        if isinstance(value, Input) and value not in inputs and value.source not in _OWN:
            found.append(f"{value.name} is no input")
        found += _wrong_kind(value)
    return found


def _unwritten(parts: Parts) -> list[str]:
    """Return the names of values that no part writes, although one writes others of their tensor."""
    accesses = [o.access(n) for p in parts for n, o in p.program.outputs.items()]
    whole = {other.name for access in accesses for other in access.parts(access.tensor)}
    return sorted(whole - {access.name for access in accesses})


def _wrong_kind(value: Value) -> list[str]:
    """Return the error of a value with respect to its arguments, if there is one."""
    kind = joined(argument.kind for argument in arguments(value))
    if isinstance(value, Map):
        free = {s.name for s in value.expr.free_symbols}
        undefined = free - {a.name for a in value.args}
        if undefined:
            return [f"{value.name} reads {sorted(undefined)}, which are none of its arguments"]
        if kind & ~value.kind:
            return [f"{value.name} is {value.kind.label}, and its arguments are {kind.label}"]
    if isinstance(value, Reduce) and not value.axes:
        return [f"{value.name} reduces {kind.label} to {value.kind.label}"]
    if isinstance(value, Take) and value.kind != Kind.ROW:
        return [f"{value.name} is an element of each row, and is {value.kind.label}"]
    return []


def _outputs(parts: Parts) -> set[tuple[str, Kind, str]]:
    """Return each output with its kind and shape."""

    def said(name: str, output: Output) -> tuple[str, Kind, str]:
        return name, output.access(name).kind, output.outline

    return {said(n, o) for p in parts for n, o in p.program.outputs.items()}


def _saved(parts: Parts) -> set[str]:
    """Return the names of the saved values."""
    return {v.name for p in parts for v in p.program.saved}


def _fixed(parts: Parts) -> set[tuple[str, str]]:
    """Return the values that must have the same bits in every operator, each with its expression."""
    values = {v for p in parts for v in p.program.nodes() if v.name in p.fixed}
    return {(v.name, str(v.expr)) for v in values if isinstance(v, Map)}
