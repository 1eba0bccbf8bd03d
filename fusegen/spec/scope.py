"""The names that a step may use, and how a mistake in a step is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusegen.base.errors import UserError
from fusegen.ops import Op
from fusegen.program import Kind
from fusegen.spec.model import Argument, Operand
from fusegen.spec.yaml import Document, Place

__all__ = ["Names", "Reading", "shown"]


@dataclass(frozen=True)
class Names:
    """The names that a step may use.

    Args:
        document: the spec.
        arguments: its arguments, by name.
        operands: its operands, by name.
        dims: the number of dims of the step's input, or 0 for any.
        values: the earlier steps whose values have a name, and `INPUT` if it is the activation.
        unnamed: names without a value here, of ops or later steps, each with what to do instead.
        taken: the arguments that are sizes of earlier sources.
        of_products: the arguments that are settings of a product, such as a convolution's stride.
    """

    document: Document
    arguments: Mapping[str, Argument]
    operands: Mapping[str, Operand]
    dims: int = 0
    values: tuple[str, ...] = ()
    unnamed: Mapping[str, str] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    of_products: frozenset[str] = frozenset()

    def of_type(self, kind: str) -> list[str]:
        """Return the names of the arguments of one type."""
        return [a.name for a in self.arguments.values() if a.type == kind]

    def kind(self, operand: str) -> Kind:
        """Return the kind of an operand in this step."""
        return self.resolved(self.operands[operand].kind)

    def resolved(self, kind: Kind) -> Kind:
        """Return a kind as this step has it: if the channel is the last dim, channel is col."""
        return Kind.COL if kind is Kind.CHANNEL and self.dims < 3 else kind


@dataclass(frozen=True)
class Reading:
    """A step that is being read.

    Args:
        names: the spec's names.
        place: the step's place in the spec; it ends in the spec's word for the op.
        op: the op.
    """

    names: Names
    place: Place
    op: Op

    @property
    def word(self) -> str:
        """The spec's word for the op."""
        return str(self.place[-1])

    def unfit(self, key: str, wanted: str, value: Any, near: str = "") -> UserError:
        """Return the error for an unsuitable value."""
        given = repr(value) if isinstance(value, str) and len(value) <= 60 else shown(value)
        return self.error(key, f"{key!r} of {self.word} must be {wanted}, not {given}{near}")

    def error(self, key: str, message: str) -> UserError:
        """Return an error at one of the step's keys."""
        return self.names.document.error((*self.place, key), message)


def shown(value: Any) -> str:
    """Return a value as a spec writes it, in one short line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else repr(value)
    return text if text.isprintable() and len(text) <= 60 else ascii(text)[:57] + "..."
