"""Parts of a chain's start: what takes them, and which values cannot be used beside them."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.spec.by_element import by_element
from fusegen.spec.chains import named_by, start_of_chain
from fusegen.spec.drafts import Draft
from fusegen.spec.model import INPUT, Step
from fusegen.spec.yaml import Document

__all__ = ["check_parts", "check_step_of_parts"]


def check_parts(document: Document, drafts: Sequence[Draft], chain: Sequence[Step]) -> None:
    """Refuse a value that the chain then splits into parts.

    Raises:
        SpecError: if a step uses one.
    """
    for place, splitting in enumerate(chain):
        if not splitting.split:
            continue
        first = start_of_chain(chain, place)
        whole = {step.label for step in chain[first:place]} | ({INPUT} if not first else set())
        for draft, step in zip(drafts[place:], chain[place:], strict=True):
            for name in sorted(whole.intersection(named_by(step))):
                message = (
                    f"{name!r} is {1 + len(splitting.split)} parts, of which {splitting.label} makes one: "
                    "use the value of a step from there on"
                )
                raise document.error(draft.place, message)


def check_step_of_parts(
    document: Document, draft: Draft, step: Step, before: Sequence[Step]
) -> None:
    """Refuse a step that takes parts of what has none, or in a way in which it has none.

    Raises:
        SpecError: the step is one.
    """
    if step.split:
        _check_before(document, draft, step, before)
        _check_alternating(document, draft, step)


def _check_before(document: Document, draft: Draft, step: Step, before: Sequence[Step]) -> None:
    """Refuse parts of what does not have as many as the chain's start: all parts go through the same steps.

    Raises:
        SpecError: an earlier step takes parts of its own, or more than an element at a time.
    """
    first = start_of_chain([*before, step], len(before))
    other = next((s for s in before[first:] if not by_element(s)), None)
    if other is None:
        return
    second = "" if draft.op is None else f", or give it a second input: {{{step.split[0]}: ...}}"
    why = "takes parts of its own" if other.split else "computes more than element by element"
    message = (
        f"{draft.word} takes the parts of x or of the product, and {other.label}, which comes before it, "
        f"{why}: put it first, or make two specs of it{second}"
    )
    raise document.error(draft.place, message)


def _check_alternating(document: Document, draft: Draft, step: Step) -> None:
    """Refuse halves that alternate along another dim than the last.

    Raises:
        SpecError: the step takes such halves.
    """
    if step.attributes["alternating"] and step.halved != -1:
        message = (
            f"{draft.word} is alternating along the last dim alone, and its dim is "
            f"{step.attributes['dim']}: leave one of them out"
        )
        raise document.error((*draft.place, "dim"), message)
