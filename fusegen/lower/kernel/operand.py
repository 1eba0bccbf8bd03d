"""What a kernel is given: tensors, numbers, random numbers, and single elements of them."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.program import Half, Kind


@dataclass(frozen=True)
class KernelOperand:
    """An input of the kernel.

    Args:
        name: its name in the structs and among the kernel's arguments.
        kind: the axes it varies along.
        stream: for random inputs, which of the chain's draws it is.
        integer: whether it is stored as int64.
        per_channel: whether the tensor holds one number a channel, spread along `kind`.
        handed: whether a kernel that runs before leaves it.
        half: which half of a tensor it is, where it is one.
    """

    name: str
    kind: Kind
    stream: int = 0
    integer: bool = False
    per_channel: bool = False
    handed: bool = False
    half: Half | None = None

    @property
    def declared(self) -> Kind:
        """The kind of the tensor itself."""
        return Kind.CHANNEL if self.per_channel else self.kind

    @property
    def tensor(self) -> str:
        """The name of the tensor that holds it."""
        return self.half.tensor if self.half else self.name

    @property
    def strided(self) -> bool:
        """Whether there may be gaps between its rows."""
        return self.kind == Kind.FULL and not self.per_channel


@dataclass(frozen=True)
class Element:
    """A field of `Row` that is one element of an operand: that of the column which an index names.

    Args:
        name: its name in `Row`.
        operand: what it is an element of: a tensor, a draw, or sums that a kernel before has left.
        index: the row operand that holds the column's number.
    """

    name: str
    operand: KernelOperand
    index: str
