"""Reads an operand of a step: an operand of the spec, an earlier step's value, an argument or a number."""

from __future__ import annotations

from typing import Any

from fusegen.base.errors import nearest
from fusegen.program import Kind
from fusegen.spec.model import INPUT, Operand, Ref
from fusegen.spec.scope import Reading, shown

__all__ = ["read_operand"]


def read_operand(step: Reading, slot: str, value: Any, example: str) -> Ref | float:
    """Return the value of an op's operand.

    Args:
        step: the step.
        slot: the op's name for the operand.
        value: what the spec gives.
        example: how to write the step, for a message.

    Raises:
        SpecError: if nothing is given, or it is unknown, or has the wrong kind or type.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and slot != step.op.classes:
        return float(value)
    if value is None:
        message = f"{step.word} needs its operand {slot!r}; write {example}"
        raise step.error(slot, message)
    if not isinstance(value, str):
        raise step.unfit(slot, "an operand, a float argument or a number", value)
    names, floats = step.names, step.names.of_type("float")
    if value in names.operands:
        if names.operands[value].factor:
            message = (
                f"{value!r} is of kind factor, which only products take: {step.word} broadcasts"
            )
            raise step.error(slot, message)
        _check_dtype(step, slot, names.operands[value])
        _check_kind(step, slot, names.operands[value])
        return Ref(value, is_argument=False)
    if value in names.values:
        _check_value(step, slot, value)
        return Ref(value, is_argument=False, is_step=True)
    if value in floats:
        return Ref(value, is_argument=True)
    if value in names.arguments:
        kind_of = names.arguments[value].type
        message = f"{value!r} is of type {kind_of}; only a float argument can be an operand"
        raise step.error(slot, message)
    known = [name for name in (*names.operands, *names.values, *floats) if name != INPUT]
    hint = nearest(value[:64], known) or ": declare it under `operands:` or `arguments:`"
    if value in names.unnamed:
        hint = f": {names.unnamed[value]}"
    raise step.error(slot, f"unknown operand {shown(value)!r}{hint}")


def _check_value(step: Reading, slot: str, name: str) -> None:
    """Refuse a step's value where the op needs a constant or another kind."""
    if slot in step.op.constant:
        message = f"{slot!r} of {step.word} gets no gradient, so it cannot be {name!r}, a value of the chain"
        raise step.error(slot, message)
    wanted = step.op.operands[slot]
    if wanted is not None:
        message = f"{slot!r} of {step.word} is {wanted.label} {wanted.shape}, which {name!r} is not"
        raise step.error(slot, message)


def _check_kind(step: Reading, slot: str, operand: Operand) -> None:
    kind, fixed = step.names.kind(operand.name), step.op.operands[slot]
    wanted = kind if fixed is None else step.names.resolved(fixed)
    # Only in a norm over the channels is one weight per channel of the kind col.
    if kind in wanted or (fixed is Kind.COL and kind is Kind.CHANNEL):
        return
    remedy = f": declare {operand.name}: channel" if wanted is Kind.CHANNEL else ""
    message = (
        f"{operand.name!r} cannot broadcast: it is {kind.label} {kind.shape}, "
        f"but {slot!r} of {step.word} is {wanted.label} {wanted.shape}{remedy}"
    )
    raise step.error(slot, message)


def _check_dtype(step: Reading, slot: str, operand: Operand) -> None:
    if slot == step.op.classes and not operand.integer:
        message = (
            f"{slot!r} of {step.word} holds a whole number for each row: declare "
            f"{operand.name}: {{kind: row, dtype: int64}}"
        )
        if step.op.by_probabilities is not None:
            message += f", or {operand.name}: full for a probability of each class"
        raise step.error(slot, message)
    if slot != step.op.classes and operand.integer:
        message = f"{operand.name!r} holds int64 numbers, but {slot!r} of {step.word} does not"
        raise step.error(slot, message)
    if operand.mask and slot not in step.op.conditions:
        message = (
            f"{operand.name!r} is of bool, but {slot!r} of {step.word} is a number; a mask goes into "
            f"masked_fill, where, or a formula: where({operand.name}, x, 0)"
        )
        raise step.error(slot, message)
