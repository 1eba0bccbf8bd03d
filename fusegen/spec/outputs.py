"""The `outputs` of a spec: the steps whose values the chain returns."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.base.errors import nearest
from fusegen.spec.chains import start_of_chain
from fusegen.spec.model import INPUT, NO_PART, Step
from fusegen.spec.section_models import OutputSection
from fusegen.spec.yaml import Document

__all__ = ["outputs"]


def outputs(
    document: Document, given: Sequence[OutputSection] | None, chain: Sequence[Step]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the labels of the steps whose values the chain returns, and of those of float32.

    There are no labels of the former sort if it returns the last step's value alone.

    Args:
        document: the spec.
        given: its `outputs`, if it has some.
        chain: its steps.

    Raises:
        SpecError: a label is of no step or given twice, a value is split into parts, a part is to be of
            float32, or the last step is missing.
    """
    if given is None:
        return (), frozenset()
    if not given:
        raise document.error(
            ("outputs",), "outputs is empty: leave it out to return the last step's value"
        )
    labels = [step.label for step in chain]
    parts = [part for step in chain for part in step.parts if part != NO_PART]
    split = {
        step.label: splitting
        for place, splitting in enumerate(chain)
        if splitting.split
        for step in chain[start_of_chain(chain, place) : place]
    }
    names = [entry.name for entry in given]
    for place, label in enumerate(names):
        where = ("outputs", place)
        if label == INPUT:
            raise document.error(
                where, "the chain's input is no output: whoever calls the chain has it"
            )
        if label not in labels and label not in parts:
            near = nearest(label, [*labels, *parts])
            raise document.error(where, f"no step is called {label!r}{near}")
        if given[place].dtype and label in parts:
            message = (
                f"{label!r} is a part, and has the dtype of what it is part of: leave out the dtype"
            )
            raise document.error(where, message)
        if label in names[:place]:
            raise document.error(where, f"{label!r} is given twice")
        if label in split:
            count, taking = 1 + len(split[label].split), split[label].label
            message = f"{label!r} is {count} parts, of which {taking} makes one: it is no output"
            raise document.error(where, message)
    if labels[-1] not in names:
        message = (
            f"the value of the last step, {labels[-1]}, is no output: add it, or leave the step out"
        )
        raise document.error(("outputs",), message)
    wide = frozenset(entry.name for entry in given if entry.dtype)
    return tuple(names) if len(names) > 1 else (), wide
