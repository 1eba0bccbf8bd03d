"""Halves of a chain's start: what takes them, and which values cannot be used beside them."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.spec.chains import start_of_chain
from fusegen.spec.drafts import Draft
from fusegen.spec.model import INPUT, Step
from fusegen.spec.yaml import Document

__all__ = ["check_halves", "check_step_of_halves"]


def check_halves(document: Document, drafts: Sequence[Draft], chain: Sequence[Step]) -> None:
    """Refuse a value that the chain then splits into two halves.

    Raises:
        SpecError: if a step uses one.
    """
    halving = next((number for number, step in enumerate(chain) if step.halves), None)
    if halving is None:
        return
    first = start_of_chain(chain, halving)
    whole = {step.label for step in chain[first:halving]} | ({INPUT} if not first else set())
    for draft, step in zip(drafts, chain, strict=True):
        for name in whole.intersection(step.mentions):
            message = (
                f"{name!r} is two halves, of which {chain[halving].label} makes one: use the value of a step "
                "from there on"
            )
            raise document.error(draft.place, message)


def check_step_of_halves(
    document: Document, draft: Draft, step: Step, before: Sequence[Step]
) -> None:
    """Refuse a step that takes halves of what has none, or in a way in which it has none.

    Raises:
        SpecError: the step is one.
    """
    if step.halves:
        _check_source(document, draft, step, before)
        _check_alternating(document, draft, step)


def _check_source(document: Document, draft: Draft, step: Step, before: Sequence[Step]) -> None:
    """Refuse a step that takes halves of anything else than x or the source's product.

    Raises:
        SpecError: it comes after another step.
    """
    if not before or before[-1].is_source:
        return
    given = "with halves" if draft.op is None else f"without {step.halves!r}"
    second = "" if draft.op is None else f", or give it a second input: {{{step.halves}: ...}}"
    message = (
        f"{draft.word} {given} takes the halves of x or of the product: put it first, or directly after the "
        f"source{second}"
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
