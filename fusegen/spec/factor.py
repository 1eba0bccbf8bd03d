"""Reads what torch's function of a source takes: the value that it starts from, and a product's factors."""

from __future__ import annotations

from typing import Any

from fusegen.base.errors import nearest
from fusegen.program import Kind
from fusegen.spec.keys import OF
from fusegen.spec.model import INPUT, Factor, Operand
from fusegen.spec.scope import Reading, shown

__all__ = ["OF", "read_factor"]

_TRANSPOSED = (".T", ".mT")


def read_factor(step: Reading, slot: str, value: Any) -> Factor:
    """Return the tensor that a source takes: an operand of kind factor, or the value of an earlier step.

    A source may also start from an operand that is as large as what the next steps compute.

    Raises:
        SpecError: if it is none of them.
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
    if name in names.operands and slot == OF:
        _check_start(step, names.operands[name])
        return Factor(name)
    if name in names.operands:
        if not names.operands[name].factor:
            message = (
                f"{slot!r} of {step.word} is {name!r}, which broadcasts: declare it of kind factor, "
                f"`{name}: factor`"
            )
            raise step.error(slot, message)
        return Factor(name, transposed=transposed)
    known = [*names.values, *(o.name for o in names.operands.values() if o.factor)]
    hint = nearest(name[:64], known) if known else ""
    if name in names.unnamed:
        hint = f": {names.unnamed[name]}"
    if not hint and slot != OF:
        hint = ": declare it under `operands:`, of kind factor"
    raise step.error(slot, f"unknown {'value' if slot == OF else 'operand'} {shown(value)!r}{hint}")


def _check_start(step: Reading, operand: Operand) -> None:
    """Refuse an operand that a source cannot start from.

    Raises:
        SpecError: it has fewer numbers than there are elements, or they are no numbers, or the source is the
            first step.
    """
    narrow = operand.dims is not None and -1 not in operand.dims
    if not operand.factor and (operand.kind is not Kind.FULL or narrow):
        message = f"{step.word} starts from {operand.name!r}: declare it of kind factor or full"
        raise step.error(OF, message)
    if operand.integer or operand.mask:
        message = (
            f"{operand.name!r} does not hold floating-point numbers, of which products are made"
        )
        raise step.error(OF, message)
    if step.place[1] == 0:
        message = (
            f"the first product starts from x: leave {OF!r} out, or put another before it, as that of a "
            "cell's input before that of its state"
        )
        raise step.error(OF, message)
