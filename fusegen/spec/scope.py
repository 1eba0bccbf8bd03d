"""What the names of a spec stand for where a step is read, and how a mistake there is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusegen.base.errors import SpecError
from fusegen.ops import Op
from fusegen.program import Kind
from fusegen.spec.model import Argument, Operand
from fusegen.spec.yaml import Document, Place

__all__ = ["Names", "Reading", "shown"]


@dataclass(frozen=True)
class Names:
    """What the names of a spec stand for where a step is read.

    Args:
        document: the spec.
        arguments: its arguments, by name.
        operands: its operands, by name.
        dims: the number of dims of what the step starts from, or 0 for any.
        values: the earlier steps whose values have a name, and `INPUT` where it is the activation.
        unnamed: what has no value here, be it an op or a later step, each with what to do about it.
    """

    document: Document
    arguments: Mapping[str, Argument]
    operands: Mapping[str, Operand]
    dims: int = 0
    values: tuple[str, ...] = ()
    unnamed: Mapping[str, str] = field(default_factory=dict)

    def of_type(self, kind: str) -> list[str]:
        """Return the names of the arguments of one type."""
        return [a.name for a in self.arguments.values() if a.type == kind]

    def kind(self, operand: str) -> Kind:
        """Return the kind that an operand has here."""
        return self.resolved(self.operands[operand].kind)

    def resolved(self, kind: Kind) -> Kind:
        """Return a kind as it is here: where the channel is the last dim, that of a column."""
        return Kind.COL if kind is Kind.CHANNEL and self.dims < 3 else kind


@dataclass(frozen=True)
class Reading:
    """A step that is being read.

    Args:
        names: the spec's names.
        place: where the step stands; it ends in what the spec calls the op.
        op: the op.
    """

    names: Names
    place: Place
    op: Op

    @property
    def word(self) -> str:
        """What the spec calls the op."""
        return str(self.place[-1])

    def unfit(self, key: str, wanted: str, value: Any, near: str = "") -> SpecError:
        """Return the refusal of a value."""
        given = repr(value) if isinstance(value, str) and len(value) <= 60 else shown(value)
        return self.error(key, f"{key!r} of {self.word} must be {wanted}, not {given}{near}")

    def error(self, key: str, message: str) -> SpecError:
        """Return an error at one of the step's keys."""
        return self.names.document.error((*self.place, key), message)


def shown(value: Any) -> str:
    """Return a value as a spec writes it, in one short line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else repr(value)
    return text if text.isprintable() and len(text) <= 60 else ascii(text)[:57] + "..."
