"""Printed C++, with what it reads: nobody needs to look for names in its text."""

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
        """Return the variable where several of a struct lie side by side: `row.m` is `row[v].m`."""
        return replace(self, struct=elements) if self.struct == struct else self


@dataclass(frozen=True)
class Code:
    """An expression as C++.

    Args:
        text: the expression.
        reads: the variables in it.
        calls: how many mathematical functions it calls; `fma` is one instruction, so it does not count.
    """

    text: str
    reads: frozenset[Variable] = frozenset()
    calls: int = 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Line:
    """`const T target = code;`, or an assignment where the target is a member; `note` is its comment."""

    target: Variable
    code: Code
    note: str = ""

    @property
    def name(self) -> str:
        """The target as C++: `exp`, or `row.max` where it is a member."""
        return str(self.target)
