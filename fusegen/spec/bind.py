"""One step of a chain: binds what the spec gives to the operands and attributes of the op."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusegen.base.errors import UserError, nearest
from fusegen.ops import Op
from fusegen.program import Kind
from fusegen.spec.attribute import check_key, read_attribute
from fusegen.spec.factor import read_factor
from fusegen.spec.model import Factor, Ref, Setting
from fusegen.spec.op_keys import DTYPE, OpKeys
from fusegen.spec.operand import read_operand
from fusegen.spec.scope import Names, Reading, shown
from fusegen.spec.size import read_size
from fusegen.spec.yaml import Place

__all__ = ["Bound", "bind", "taking"]

#: The settings of a submodule, by name.
Settings = Mapping[str, Setting]


@dataclass
class Bound:
    """The operands, attributes and settings that a step gives its op, and whether its parameters are of
    float32."""

    text: str
    operands: dict[str, Ref | float] = field(default_factory=dict)
    attributes: dict[str, Ref | float | int | bool | str | tuple[int, ...] | None] = field(
        default_factory=dict
    )
    settings: dict[str, Setting] = field(default_factory=dict)
    float32: bool = False
    factors: dict[str, Factor] = field(default_factory=dict)


def bind(names: Names, place: Place, op: Op, given: Any, sizes: Settings) -> Bound:
    """Return what a step gives its op.

    Args:
        names: the spec's names.
        place: the step's place in the spec; it ends in the spec's word for the op.
        op: the op.
        given: what follows the op: nothing, one value, or a mapping.
        sizes: the sizes known from the chain's source.

    Raises:
        SpecError: something is missing, unknown, or of the wrong kind or type.
    """
    return _Binder(names, place, op, sizes).bind(given)


def taking(names: Names, op: Op, given: Any) -> Op:
    """Return the op that a step calls by its word: the one that takes probabilities, if it is given them."""
    if op.by_probabilities is None:
        return op
    value = given.get(op.classes) if isinstance(given, dict) else given
    operand = names.operands.get(value) if isinstance(value, str) else None
    if operand is None:
        return op.by_probabilities if value in names.values else op
    classes = operand.integer or Kind.COL not in operand.kind
    return op if classes else op.by_probabilities


class _Binder:
    def __init__(self, names: Names, place: Place, op: Op, sizes: Settings) -> None:
        self._step, self._op = Reading(names, place, op), op
        self._known = sizes
        self._word = self._step.word
        takes = OpKeys.of(op)
        self._inside, self._slots, self._sized = takes.inside, takes.slots, takes.sized
        self._sizes = [name for name in self._sized if op.source or name not in sizes]
        self._geometry, self._flags = takes.geometry, takes.flags
        self._factors = takes.factors
        self._keys = takes.listed(op, self._sizes)
        self._targets = takes.alone(op)

    def bind(self, given: Any) -> Bound:
        values = self._by_name(given)
        for key in values:
            self._check_key(key)
        bound = Bound(self._text(values, sole=not isinstance(given, dict)))
        for name in self._op.of_parts:
            second = next((part for part in self._op.parts if part in values), None)
            if second and name in values:
                message = f"{self._word} takes {name} for the halves of one tensor: drop it, or {second!r}"
                raise self._step.error(name, message)
        for slot in self._slots:
            if slot in self._op.parts and slot not in values:
                continue
            if values.get(slot) is not None or slot not in self._op.optional:
                bound.operands[slot] = read_operand(
                    self._step, slot, values.get(slot), self._example()
                )
        for name, default in self._op.attributes.items():
            value = values.get(name, default)
            if value is None and name in self._op.required:
                raise self._step.error(
                    name, f"{self._word} needs {name!r}; write {self._example()}"
                )
            given = value is not None and name in values
            bound.attributes[name] = read_attribute(self._step, name, value) if given else value
        self._check_ascending(values, bound)
        for name in self._factors:
            if name in values:
                bound.factors[name] = read_factor(self._step, name, values[name])
        for name in self._sized:
            known = name if name not in self._sizes else self._width(name, values)
            if not known and name not in values and name in self._step.names.taken:
                raise self._taken(name)
            bound.settings[name] = (
                self._known[known] if known else read_size(self._step, name, values)
            )
        for name, default in self._geometry.items():
            by_name = name not in values and name in self._step.names.arguments
            if by_name and self._op.pools and name in self._step.names.of_products:
                continue  # it is the convolution's; a pooling has torch's default
            if by_name and (name in self._step.names.taken or self._named_elsewhere(name)):
                raise self._taken(name)
            if name in values or by_name:
                bound.settings[name] = read_size(self._step, name, values, default)
        for name, usual in self._flags.items():
            bools = self._step.names.of_type("bool")
            flag = values.get(name, name if name in bools else usual)
            if isinstance(flag, str) and flag in bools:
                bound.settings[name] = Ref(flag, is_argument=True)
                continue
            if not isinstance(flag, bool):
                near = nearest(flag[:64], bools) if isinstance(flag, str) and bools else ""
                raise self._step.unfit(name, "true, false or a bool argument", flag, near)
            bound.settings[name] = flag
        if DTYPE in self._keys and DTYPE in values:
            if values[DTYPE] != "float32":
                raise self._step.unfit(DTYPE, "float32", values[DTYPE])
            bound.float32 = True
        return bound

    def _width(self, name: str, values: Mapping[str, Any]) -> str:
        """Return the name of the known size that a source takes for its width, or an empty string."""
        widths = ("in_features", "in_channels")
        taken = name in widths and name not in values and "features" in self._known
        return "features" if taken else ""

    def _check_ascending(self, values: Mapping[str, Any], bound: Bound) -> None:
        """Refuse a number that is more than the next; an argument is known at a call alone."""
        for low, high in itertools.pairwise(self._op.ascending):
            least, most = bound.attributes[low], bound.attributes[high]
            if isinstance(least, float) and isinstance(most, float) and least > most:
                if high in values:
                    raise self._step.unfit(high, f"{low} ({least:g}) or more", most)
                raise self._step.unfit(low, f"{high} ({most:g}) or less", least)

    def _taken(self, name: str) -> UserError:
        """Return the error for an argument of another step that has the name of what this one needs."""
        message = (
            f"the argument {name!r} is taken by another step, and {self._word} would take it by its name; "
            f"say so with `{name}: {name}`, or give another {name}"
        )
        return self._step.names.document.error(self._step.place, message)

    def _named_elsewhere(self, argument: str) -> bool:
        """Whether another step uses an int argument, or a multiple of it."""
        chain = self._step.names.document.data["chain"]
        others = (item for index, item in enumerate(chain) if index != self._step.place[1])
        given = (v for item in others if isinstance(item, dict) for v in item.values())
        values = (v for g in given for v in (g.values() if isinstance(g, dict) else [g]))
        words = (w for v in values for w in (v if isinstance(v, list) else [v]))
        return any(isinstance(w, str) and argument in re.findall(r"\w+", w) for w in words)

    def _check_key(self, key: str) -> None:
        if self._op.submodule and key in self._inside and key not in self._keys:
            module = f"torch.{self._op.submodule.module_for(self._step.names.dims)}"
            message = f"{key!r} of {self._word} lives in its {module}: a spec does not give it"
            raise self._step.error(key, message)
        check_key(self._step, key, [*self._keys, "name"])

    def _by_name(self, given: Any) -> dict[str, Any]:
        """Return what is given, by name; a single value is for the only operand, or else the only
        attribute."""
        if given is None:
            return {}
        if isinstance(given, dict):
            return {key: value for key, value in given.items() if key != "name"}
        targets = self._targets
        second = self._op.refusal("other") if "dim" in targets else None
        if second and not isinstance(given, int | list):
            message = f"{self._word} reduces a dim, which {shown(given)} is not: {second}"
            raise self._step.names.document.error(self._step.place, message)
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
        raise self._step.names.document.error(self._step.place, message)

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
