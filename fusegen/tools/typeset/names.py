"""The names of a program's values as mathematicians would write them.

`grad_y` becomes y with a bar, `d_gelu` gelu with a prime, `softmax_max` softmax with the subscript max. Only
names that the calculus made are read so: a step that a spec calls `d_model` keeps its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fusegen.program import Map, Program, Value

__all__ = ["Bar", "Name", "Names", "Plain", "Prime", "Sub"]

_PARTIAL = re.compile(r"d (\S+) / d (\S+)")
_NUMBERED = re.compile(r"(.+)_(\d+)")


@dataclass(frozen=True)
class Plain:
    """A name as the spec has it."""

    text: str


@dataclass(frozen=True)
class Sub:
    """A name with a subscript: a part of the computation of a value, or the number of a version."""

    of: Name
    below: str


@dataclass(frozen=True)
class Bar:
    """The gradient that arrives at a value: the cotangent, or adjoint."""

    of: Name


@dataclass(frozen=True)
class Prime:
    """The derivative of a value by its argument, which is named where there are several."""

    of: Name
    by: Name | None = None


Name = Plain | Sub | Bar | Prime


class Names:
    """Reads the names of some programs.

    Args:
        programs: a forward program and its derivatives, in order.
    """

    def __init__(self, programs: Iterable[Program]) -> None:
        first, *rest = programs
        self._own = {value.name for value in _values(first)} | set(first.outputs)
        self._partials: Mapping[str, tuple[str, str]] = {
            value.name: (found[1], found[2])
            for program in (first, *rest)
            for value in program.nodes()
            if isinstance(value, Map) and (found := _PARTIAL.fullmatch(value.note))
        }
        self._known = self._own | {v.name for program in rest for v in _values(program)}

    def read(self, name: str) -> Name:
        """Return a name's notation."""
        if name in self._own:
            return self._plain(name)
        if name in self._partials:
            value, argument = self._partials[name]
            short = argument.removeprefix(f"{value}_")
            several = name.removeprefix(f"d_{value}").startswith(f"_{short}")
            return Prime(self.read(value), self.read(argument) if several else None)
        if name.startswith("grad_"):
            inner = name.removeprefix("grad_")
            numbered = _NUMBERED.fullmatch(name)
            if numbered and inner not in self._known:
                return Sub(self.read(numbered[1]), numbered[2])
            return Bar(self.read(inner))
        return self._plain(name)

    def _plain(self, name: str) -> Name:
        """Return a name with a subscript if it belongs to another value, such as `softmax_max`."""
        for place in (place for place, letter in enumerate(name) if letter == "_"):
            if name[:place] in self._own and name[place + 1 :]:
                return Sub(Plain(name[:place]), name[place + 1 :].replace("_", " "))
        return Plain(name)


def _values(program: Program) -> Iterable[Value]:
    return (*program.inputs, *program.nodes())
