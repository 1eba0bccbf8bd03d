"""One step of a chain: what its op takes, and what the spec gives it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusegen.errors import SpecError, nearest
from fusegen.ops import Op
from fusegen.program import Kind
from fusegen.spec_dims import DimError, are_dims, check_dim, neighbours
from fusegen.spec_types import Argument, Operand, Ref, Setting
from fusegen.spec_yaml import Document, Place

__all__ = ["Bound", "Names", "bind", "shown"]

#: The settings of a submodule, by name.
Settings = Mapping[str, Setting]

#: A size that is several times an int argument: `2 * hidden`.
_PRODUCT = re.compile(r"(\d{1,9}) ?\* ?(\w+)|(\w+) ?\* ?(\d{1,9})")
_WANTED = {
    "float": "a number or a float argument",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a word",
}


@dataclass(frozen=True)
class Names:
    """What the names of a spec stand for: its arguments and operands, by name; and its `dims`."""

    document: Document
    arguments: Mapping[str, Argument]
    operands: Mapping[str, Operand]
    dims: int = 0

    def of_type(self, kind: str) -> list[str]:
        """Return the names of the arguments of one type."""
        return [a.name for a in self.arguments.values() if a.type == kind]

    def kind(self, operand: str) -> Kind:
        """Return the kind that an operand has here."""
        return self.resolved(self.operands[operand].kind)

    def resolved(self, kind: Kind) -> Kind:
        """Return a kind as it is here: where the channel is the last dim, that of a column."""
        return Kind.COL if kind is Kind.CHANNEL and self.dims < 3 else kind


@dataclass
class Bound:
    """What a step's op was given, each in its place."""

    text: str
    operands: dict[str, Ref | float] = field(default_factory=dict)
    attributes: dict[str, Ref | float | int | bool | str | tuple[int, ...] | None] = field(
        default_factory=dict
    )
    settings: dict[str, Setting] = field(default_factory=dict)


def bind(names: Names, place: Place, op: Op, given: Any, sizes: Settings) -> Bound:
    """Return what an op is given by a step.

    Args:
        names: the spec's names.
        place: where the step stands; it ends in what the spec calls the op.
        op: the op.
        given: what stands behind the op: nothing, one value, or a mapping.
        sizes: the sizes known from the chain's source.

    Raises:
        SpecError: something is missing, unknown, or of the wrong kind or type.
    """
    return _Binder(names, place, op, sizes).bind(given)


def shown(value: Any) -> str:
    """Return a value as a spec writes it, in one short line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else repr(value)
    return text if text.isprintable() and len(text) <= 60 else ascii(text)[:57] + "..."


class _Binder:
    def __init__(self, names: Names, place: Place, op: Op, sizes: Settings) -> None:
        self._names, self._place, self._op = names, place, op
        self._known = sizes
        self._word = str(place[-1])
        self._inside = op.submodule.operands if op.submodule else ()
        self._slots = [name for name in op.operands if name not in self._inside]
        sized = op.submodule.sized_by if op.submodule else ()
        self._sized = tuple(name for name in sized if name not in op.attributes)
        self._sizes = [name for name in self._sized if op.source or name not in sizes]
        self._geometry = op.submodule.geometry if op.submodule else {}
        self._flags = {op.submodule.flag: op.submodule.flagged} if op.submodule else {}
        self._flags.pop("", None)
        self._keys = [
            *(*self._slots, *op.attributes, *self._sizes, *self._geometry, *self._flags),
        ]

    def bind(self, given: Any) -> Bound:
        values = self._by_name(given)
        for key in values:
            self._check_key(key)
        bound = Bound(self._text(values, sole=not isinstance(given, dict)))
        halves = self._op.halves
        if halves and halves in values and "dim" in values:
            message = f"{self._word} takes dim for the halves of one tensor: drop it, or {halves!r}"
            raise self._error("dim", message)
        for slot in self._slots:
            if slot == halves and slot not in values:
                continue
            if values.get(slot) is not None or slot not in self._op.optional:
                bound.operands[slot] = self._operand(slot, values.get(slot))
        for name, default in self._op.attributes.items():
            value = values.get(name, default)
            if value is None and name in self._op.required:
                raise self._error(name, f"{self._word} needs {name!r}; write {self._example()}")
            given = value is not None and name in values
            bound.attributes[name] = self._attribute(name, value) if given else value
        for name in self._sized:
            known = name not in self._sizes
            bound.settings[name] = self._known[name] if known else self._size(name, values)
        for name, default in self._geometry.items():
            if name in values or name in self._names.arguments:
                bound.settings[name] = self._size(name, values, default)
        for name, usual in self._flags.items():
            flag = values.get(name, usual)
            if not isinstance(flag, bool):
                raise self._unfit(name, "true or false", flag)
            bound.settings[name] = flag
        return bound

    def _check_key(self, key: str) -> None:
        if key in self._keys:
            return
        if self._op.submodule and key in self._inside:
            module = f"torch.{self._op.submodule.module_for(self._names.dims)}"
            message = f"{key!r} of {self._word} lives in its {module}: a spec does not give it"
            raise self._error(key, message)
        if reason := self._op.refusal(key):
            raise self._error(key, f"{self._word} takes no {key!r}: {reason}")
        near = nearest(key[:64], [*self._keys, "name"])
        message = f"{self._word} has no attribute or operand {shown(key)!r}{near}"
        raise self._error(key, message)

    def _by_name(self, given: Any) -> dict[str, Any]:
        """Return what is given by name; a sole value is the sole operand, or the sole attribute."""
        if given is None:
            return {}
        if isinstance(given, dict):
            return {key: value for key, value in given.items() if key != "name"}
        needed = [slot for slot in self._slots if slot not in self._op.optional]
        targets = needed or list(self._op.attributes)
        if len(targets) == 1 and not isinstance(given, list):
            return {targets[0]: given}
        what = " and ".join(targets)
        if isinstance(given, list):
            what = f"{what or 'nothing'}, not a list"
        elif targets:
            what = f"{what}; give them by name"
        else:
            what = "its settings by name" if self._keys else "neither an operand nor an attribute"
        message = f"{self._word} takes {what}; write {self._example()}"
        raise self._names.document.error(self._place, message)

    def _operand(self, slot: str, value: Any) -> Ref | float:
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and slot != self._op.classes
        ):
            return float(value)
        if value is None:
            message = f"{self._word} needs its operand {slot!r}; write {self._example()}"
            raise self._error(slot, message)
        if not isinstance(value, str):
            raise self._unfit(slot, "an operand, a float argument or a number", value)
        names, floats = self._names, self._names.of_type("float")
        if value in names.operands:
            self._check_integer(slot, names.operands[value])
            self._check_kind(slot, names.operands[value])
            return Ref(value, is_argument=False)
        if value in floats:
            return Ref(value, is_argument=True)
        if value in names.arguments:
            kind_of = names.arguments[value].type
            message = f"{value!r} is of type {kind_of}; only a float argument can be an operand"
            raise self._error(slot, message)
        known = [*names.operands, *floats]
        hint = nearest(value[:64], known) or ": declare it under `operands:` or `arguments:`"
        raise self._error(slot, f"unknown operand {shown(value)!r}{hint}")

    def _check_kind(self, slot: str, operand: Operand) -> None:
        kind, fixed = self._names.kind(operand.name), self._op.operands[slot]
        wanted = kind if fixed is None else self._names.resolved(fixed)
        if kind in wanted:
            return
        remedy = f": declare {operand.name}: channel" if wanted is Kind.CHANNEL else ""
        message = (
            f"{operand.name!r} cannot broadcast: it is {kind.label} {kind.shape}, "
            f"but {slot!r} of {self._word} is {wanted.label} {wanted.shape}{remedy}"
        )
        raise self._error(slot, message)

    def _check_integer(self, slot: str, operand: Operand) -> None:
        if slot == self._op.classes and not operand.integer:
            message = (
                f"{slot!r} of {self._word} holds a whole number for each row: declare "
                f"{operand.name}: {{kind: row, dtype: int64}}"
            )
            raise self._error(slot, message)
        if slot != self._op.classes and operand.integer:
            message = f"{operand.name!r} holds int64 numbers, but {slot!r} of {self._word} does not"
            raise self._error(slot, message)

    def _attribute(self, name: str, value: Any) -> Ref | float | int | bool | str | tuple[int, ...]:
        if isinstance(value, list) and name in self._op.dims and self._op.several:
            return self._several(name, value)
        kind = self._type(name)
        near = ""
        if isinstance(value, str):
            choices = self._op.choices.get(name, ())
            if value in choices:
                return float(value) if kind == "float" else value
            floats = self._names.of_type("float")
            if kind == "float" and value in floats:
                return Ref(value, is_argument=True)
            if name == self._op.groups and value in self._names.of_type("int"):
                return Ref(value, is_argument=True)
            if kind in ("float", "str"):
                near = nearest(value[:64], floats if kind == "float" else choices)
            elif value in self._names.arguments:
                near = "; only a float attribute can be an argument"
        elif isinstance(value, bool):
            if kind == "bool":
                return value
        elif kind == "float" and isinstance(value, int | float):
            return float(value)
        elif kind == "int" and isinstance(value, int):
            self._check_dim(name, value)
            if name == self._op.groups and value < 1:
                raise self._unfit(name, "1 or more, or an int argument", value)
            return value
        raise self._unfit(name, _WANTED[kind], value, near)

    def _type(self, name: str) -> str:
        """Return the type of an attribute: that of its default, else what its declaration says."""
        default = self._op.attributes[name]
        if default is not None:
            return type(default).__name__
        declared = str(inspect.signature(self._op.formula).parameters[name].annotation)
        return declared.removesuffix(" | None")

    def _several(self, name: str, value: list[Any]) -> tuple[int, ...]:
        """Return neighbouring dims in order, counted from the end."""
        if not are_dims(value):
            raise self._unfit(name, "a dim, or a list of neighbouring ones", value)
        try:
            return neighbours(name, value, self._names.dims)
        except DimError as error:
            raise self._error(name, str(error)) from None

    def _check_dim(self, name: str, value: int) -> None:
        halves = self._op.halves and name == "dim"
        if halves or name in self._op.dims:
            why = ("the halves of [rows, cols] lie along the last dim",) if halves else ()
            try:
                check_dim(name, value, self._names.dims, *why)
            except DimError as error:
                raise self._error(name, str(error)) from None

    def _size(
        self, name: str, values: Mapping[str, Any], default: int | None = None
    ) -> Ref | int | tuple[int, ...]:
        """Return a size of a submodule: a number, or the int argument given or called like it.

        One that has a default may be 0, a list with a number for each dim, or a shape argument; so may
        the sizes of a source's kernel.
        """
        value = values.get(name, name)
        counts = self._op.submodule.channels if self._op.submodule else ""
        per_dim = (default is not None or name == "kernel_size") and name != counts
        if _is_size(value, 1 if default is None or name == counts else 0):
            return value  # type: ignore[no-any-return]
        if per_dim and isinstance(value, list) and all(_is_size(v, 0) for v in value):
            return tuple(value)
        ints = self._names.of_type("int") + (self._names.of_type("shape") if per_dim else [])
        if isinstance(value, str) and value in ints:
            return Ref(value, is_argument=True)
        if isinstance(value, str) and (product := _PRODUCT.fullmatch(value)):
            times, argument = int(product[1] or product[4]), product[2] or product[3]
            if argument in self._names.of_type("int") and times:
                return Ref(argument, is_argument=True, times=times)
        if name not in values:
            message = f"{self._word} needs {name!r}: declare `{name}: int` under `arguments:`"
            raise self._error(name, message)
        near = nearest(value[:64], ints) if isinstance(value, str) else ""
        wanted = "an int argument, a size, or a number times an argument"
        raise self._unfit(name, wanted, value, near)

    def _example(self) -> str:
        slots = [s for s in self._slots if s not in self._op.optional]
        keys = slots or list(self._op.attributes) or self._keys
        if not keys:
            return f"- {self._word}"
        if len(keys) == 1 and keys == slots:
            return f"- {self._word}: {keys[0].upper()}"
        return f"- {self._word}: {{" + ", ".join(f"{key}: ..." for key in keys) + "}"

    def _text(self, values: Mapping[str, Any], *, sole: bool) -> str:
        if sole and self._slots and values:
            return f"{self._word}({shown(next(iter(values.values())))})"
        listed = ", ".join(f"{key}={shown(value)}" for key, value in values.items())
        return f"{self._word}({listed})" if listed else self._word

    def _unfit(self, key: str, wanted: str, value: Any, near: str = "") -> SpecError:
        given = repr(value) if isinstance(value, str) and len(value) <= 60 else shown(value)
        return self._error(key, f"{key!r} of {self._word} must be {wanted}, not {given}{near}")

    def _error(self, key: str, message: str) -> SpecError:
        return self._names.document.error((*self._place, key), message)


def _is_size(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
