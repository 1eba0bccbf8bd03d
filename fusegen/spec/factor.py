"""Reads what torch's function of a source takes: the value that it starts from, and a product's factors."""

from __future__ import annotations

from typing import Any

from fusegen.base.errors import nearest
from fusegen.spec.model import INPUT, Factor
from fusegen.spec.scope import Reading, shown

__all__ = ["OF", "read_factor"]

#: The key for the value that a source starts from, if that is not the one before it.
OF = "of"
_TRANSPOSED = (".T", ".mT")


def read_factor(step: Reading, slot: str, value: Any) -> Factor:
    """Return the tensor that a source takes: an operand of kind factor, or the value of an earlier step.

    Raises:
        SpecError: if it is neither.
    """
    if not isinstance(value, str):
        raise step.unfit(slot, "an operand of kind factor, or an earlier step", value)
    ending = next((end for end in _TRANSPOSED if slot != OF and value.endswith(end)), "")
    name = value.removesuffix(ending)
    names = step.names
    transposed = bool(ending)
    if name in names.values:
        return Factor(name, is_step=True, transposed=transposed)
    if name == INPUT and INPUT in names.operands:
        return Factor(name, is_step=True, transposed=transposed)
    if name in names.operands and slot != OF:
        if not names.operands[name].factor:
            message = (
                f"{slot!r} of {step.word} is {name!r}, which broadcasts: declare it of kind factor, "
                f"`{name}: factor`"
            )
            raise step.error(slot, message)
        return Factor(name, transposed=transposed)
    known = [
        *names.values,
        *([] if slot == OF else (o.name for o in names.operands.values() if o.factor)),
    ]
    hint = nearest(name[:64], known) if known else ""
    if name in names.unnamed:
        hint = f": {names.unnamed[name]}"
    if not hint and slot != OF:
        hint = ": declare it under `operands:`, of kind factor"
    raise step.error(slot, f"unknown {'value' if slot == OF else 'operand'} {shown(value)!r}{hint}")
