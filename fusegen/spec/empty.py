"""Refuses keys without a value, such as `approximate:`; they are most likely mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fusegen.ops import find
from fusegen.spec.yaml import Document, Place

__all__ = ["check_given"]


def check_given(document: Document) -> None:
    """Refuse empty parts, and `null` if it is not a valid value there.

    Raises:
        SpecError: for the first such part.
    """
    for place, value in _parts(document.data, ()):
        if value is not None or not place:
            continue
        empty = place in document.empty
        if not empty and _takes_null(place):
            continue
        if len(place) == 3 and place[0] == "chain" and len(document.data["chain"][place[1]]) > 1:
            continue  # a step with several keys, which is another mistake
        raise document.error(place, _message(place, "empty" if empty else "null"))


def _parts(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    yield place, value
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from _parts(inside, (*place, key))
    elif isinstance(value, list):
        for index, inside in enumerate(value):
            yield from _parts(inside, (*place, index))


def _takes_null(place: Place) -> bool:
    """Whether a part is an attribute with None as its default, such as `dim` of `sum`."""
    if len(place) != 4 or place[0] != "chain":
        return False
    op, name = find(str(place[2])), place[3]
    if op is None or name in op.required:
        return False
    return {**op.attributes, **op.optional}.get(str(name), 0) is None


def _message(place: Place, state: str) -> str:
    *around, last = place
    if place == ("chain",):
        return f"the chain is {state}: it needs at least one step"
    if isinstance(last, int):
        return f"item {last + 1} of the list is {state}: give it a value, or remove it"
    if len(place) == 1:
        return f"the section {last!r} is {state}: give what belongs into it, or leave it out"
    if len(place) == 3 and place[0] == "chain":
        return f"there is no value after {last!r}: give one, or drop the ':'"
    owner = next((key for key in reversed(around) if isinstance(key, str)), "")
    return f"{last!r} of {owner} is {state}: give it a value, or leave it out"
