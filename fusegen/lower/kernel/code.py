"""Printed C++ and the variables that it reads, so that nobody need search its text for names."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Variable:
    """A variable of an element's functions.

    Args:
        name: its name.
        struct: the struct that it is a member of, such as "col" or "row"; empty for a local variable.
    """

    name: str
    struct: str = ""

    def __str__(self) -> str:
        return f"{self.struct}.{self.name}" if self.struct else self.name

    def among(self, struct: str, elements: str) -> Variable:
        """Return the variable for one of several structs in an array: `row.m` becomes `row[v].m`."""
        return replace(self, struct=elements) if self.struct == struct else self


@dataclass(frozen=True)
class Code:
    """An expression in C++.

    Args:
        text: the expression.
        reads: the variables in it.
        calls: how many mathematical functions it calls. `fma` is a single instruction and does not count.
    """

    text: str
    reads: frozenset[Variable] = frozenset()
    calls: int = 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Line:
    """`const T target = code;`, or an assignment if the target is a member. `note` is its comment."""

    target: Variable
    code: Code
    note: str = ""

    @property
    def name(self) -> str:
        """The target in C++: `exp`, or `row.max` if it is a member."""
        return str(self.target)
