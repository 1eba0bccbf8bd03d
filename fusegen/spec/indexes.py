"""Refuses steps that go on from the number of a column: they would calculate with it."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.spec.cut import number_of
from fusegen.spec.model import Step
from fusegen.spec.yaml import Document

__all__ = ["check_indexes"]


def check_indexes(document: Document, chain: Sequence[Step], wide: frozenset[str]) -> None:
    """Refuse the number of a column where a number is calculated with, or where it is of float32.

    Args:
        document: the spec.
        chain: its steps.
        wide: the labels of the steps whose values it returns in float32.

    Raises:
        SpecError: a step takes one, or an output is one of float32.
    """
    indexes = {step.label for step in chain if step.indexes}
    for place, step in enumerate(chain):
        named = (*step.mentions, *(f.name for f in step.factors.values()))
        used = next((name for name in named if name in indexes), None)
        if place and step.takes_x and chain[place - 1].indexes:
            used = chain[place - 1].label
        if used:
            message = (
                f"{used} gives numbers of columns, of int64, and {step.label} calculates with them: make "
                f"{used} the last step, or list it in outputs and go on with a formula of earlier values"
            )
            raise document.error(("chain", number_of(chain, place)), message)
    if wrong := sorted(indexes & wide):
        message = f"{wrong[0]} is of int64, which a dtype cannot change: leave the dtype out"
        raise document.error(("outputs",), message)
