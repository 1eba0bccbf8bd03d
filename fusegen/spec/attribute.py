"""Reads an attribute of a step's op: a number, a word, a dim, or an argument of the spec."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from fusegen.base.errors import nearest
from fusegen.ops import Op
from fusegen.spec.dims import DimError, are_dims, check_dim, dims_in_order
from fusegen.spec.model import Ref
from fusegen.spec.scope import Reading, shown
from fusegen.spec.section_models import OperandSection

__all__ = ["check_key", "read_attribute", "type_of"]

_WANTED = {
    "float": "a number or a float argument",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a word",
}


def read_attribute(
    step: Reading, name: str, value: Any
) -> Ref | float | int | bool | str | tuple[int, ...]:
    """Return the value of an attribute, in its type.

    Raises:
        SpecError: if it has another type, or is a dim that the activation does not have.
    """
    if isinstance(value, list) and name in step.op.dims and step.op.several:
        return _several(step, name, value)
    kind = type_of(step.op, name)
    near = ""
    if isinstance(value, str):
        choices = step.op.choices.get(name, ())
        if value in choices:
            return float(value) if kind == "float" else value
        floats = step.names.of_type("float")
        if kind == "float" and value in floats:
            return Ref(value, is_argument=True)
        if name == step.op.groups and value in step.names.of_type("int"):
            return Ref(value, is_argument=True)
        if kind in ("float", "str"):
            near = nearest(value[:64], floats if kind == "float" else choices)
        elif value in step.names.arguments:
            near = "; only a float attribute can be an argument"
    elif isinstance(value, bool):
        if kind == "bool":
            return value
    elif kind == "float" and isinstance(value, int | float):
        if name in step.op.ranges and value not in step.op.ranges[name]:
            raise step.unfit(name, str(step.op.ranges[name]), value)
        return float(value)
    elif kind == "int" and isinstance(value, int):
        _check_dim(step, name, value)
        if name == step.op.groups and value < 1:
            raise step.unfit(name, "1 or more, or an int argument", value)
        return value
    raise step.unfit(name, _WANTED[kind], value, near)


def check_key(step: Reading, key: str, known: Collection[str]) -> None:
    """Refuse a key that is not among those that an op takes.

    Raises:
        SpecError: with the reason, or the nearest key.
    """
    if key in known:
        return
    if reason := step.op.refusal(key):
        raise step.error(key, f"{step.word} takes no {key!r}: {reason}")
    near = nearest(key[:64], known)
    if key in OperandSection.model_fields and "did you mean" not in near:
        raise step.error(
            key,
            f"{step.word} takes no {key!r}: a tensor is declared under `operands:`, such as "
            "w: {kind: scalar, init: ones}, and a step gives its name",
        )
    message = f"{step.word} has no attribute or operand {shown(key)!r}{near}"
    raise step.error(key, message)


def type_of(op: Op, name: str) -> str:
    """Return the type of an attribute: that of its default, else that in its declaration."""
    default = op.attributes[name]
    if default is not None:
        return type(default).__name__
    declared = str(inspect.signature(op.formula).parameters[name].annotation)
    return declared.removesuffix(" | None")


def _several(step: Reading, name: str, value: list[Any]) -> tuple[int, ...]:
    """Return several dims in order, counted from the end."""
    if not are_dims(value):
        raise step.unfit(name, "a dim, or a list of dims", value)
    try:
        return dims_in_order(name, value, step.names.dims)
    except DimError as error:
        raise step.error(name, str(error)) from None


def _check_dim(step: Reading, name: str, value: int) -> None:
    parts = step.op.parts and name == "dim"
    if parts or name in step.op.dims:
        why = ("the parts of [rows, cols] are along the last dim",) if parts else ()
        try:
            check_dim(name, value, step.names.dims, *why)
        except DimError as error:
            raise step.error(name, str(error)) from None
