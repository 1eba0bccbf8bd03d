"""Refuses steps whose values nothing uses: the next step may be a formula of other values than x."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.spec.factor import OF
from fusegen.spec.model import Step
from fusegen.spec.yaml import Document

__all__ = ["check_used"]


def check_used(document: Document, chain: Sequence[Step], outputs: Sequence[str]) -> None:
    """Refuse a step that no output depends on.

    Args:
        document: the spec.
        chain: its steps.
        outputs: the labels of the steps whose values it returns beside the last one's.

    Raises:
        SpecError: for the last such step.
    """
    needed = {chain[-1].label, *outputs}
    for place in reversed(range(len(chain))):
        step = chain[place]
        if step.label not in needed:
            after = chain[place + 1].label
            after = chain[place + 1].label
            message = (
                f"nothing uses the value of {step.label}: {after}, the step after it, is a formula without x "
                "or starts from another value; use the value by name, list it in outputs, or leave the step "
                "out"
            )
            raise document.error(("chain", place), message)
        needed |= {*step.mentions, *(f.name for f in step.factors.values() if f.is_step)}
        if step.takes_x and place and OF not in step.factors:
            needed.add(chain[place - 1].label)
