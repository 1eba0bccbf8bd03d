"""Refuses steps and parts of x whose values nothing uses.

The step after one may be a formula of other values than x.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp

from fusegen.spec.chains import named_by
from fusegen.spec.cut import START, number_of
from fusegen.spec.factor import OF
from fusegen.spec.model import EXPR, NO_PART, Step
from fusegen.spec.yaml import Document

__all__ = ["check_used"]


def check_used(document: Document, chain: Sequence[Step], outputs: Sequence[str]) -> None:
    """Refuse a step that no output depends on, and a part that has a name and no use.

    Args:
        document: the spec.
        chain: its steps.
        outputs: the labels of the steps whose values it returns beside the last one's.

    Raises:
        SpecError: for the last such step.
    """
    _check_parts(document, chain, outputs)
    needed = {chain[-1].label, *outputs}
    for place in reversed(range(len(chain))):
        step = chain[place]
        if needed.isdisjoint(step.names):
            after = next(later.label for later in chain[place + 1 :] if later.op is not START)
            message = (
                f"nothing uses the value of {step.label}: {after}, the step after it, is a formula without x "
                "or starts from another value; use the value by name, list it in outputs, or leave the step "
                "out"
            )
            raise document.error(("chain", number_of(chain, place)), message)
        needed |= {*named_by(step), *step.tensors}
        if step.takes_x and place and not (step.is_source and OF in step.factors):
            needed.add(chain[place - 1].label)


def _check_parts(document: Document, chain: Sequence[Step], outputs: Sequence[str]) -> None:
    """Refuse a part of x that neither its formula nor a later step uses.

    Raises:
        SpecError: there is one.
    """
    for place, step in enumerate(chain):
        used = {*outputs, *(name for later in chain[place:] for name in named_by(later))}
        symbols = ["x", *step.split] if step.split else step.parts
        for symbol, part in zip(symbols, step.parts, strict=False):
            inside = part in used or sp.Symbol(symbol, real=True) in step.expr.free_symbols
            if not inside and part != NO_PART:
                message = (
                    f"no step uses {part}, a part of what reaches {step.label}: use it, or call it "
                    f"{NO_PART} in parts"
                )
                raise document.error(("chain", number_of(chain, place), EXPR, "parts"), message)
