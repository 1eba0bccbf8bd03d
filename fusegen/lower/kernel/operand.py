"""A kernel's inputs: tensors, numbers, random numbers, and single elements of them."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.program import Access, Kind


def argument_of(name: str, access: Access | None) -> str:
    """Return the argument with the address of a tensor, or of the part that is accessed.

    Parts that alternate are read in vectors of both, from where the tensor begins.
    """
    return access.tensor if access and access.step > 1 else name


def gap_of(tensor: str, access: Access | None) -> str:
    """Return the argument with the gaps between a tensor's rows, which depend on the step of an access."""
    return f"{tensor}_pair_gap" if access and access.step > 1 else f"{tensor}_gap"


class Accessed:
    """A tensor of the kernel, or a part of one: its names among the kernel's arguments."""

    name: str
    access: Access | None

    @property
    def tensor(self) -> str:
        """The name of the tensor that holds it."""
        return self.access.tensor if self.access else self.name

    @property
    def argument(self) -> str:
        """The kernel's argument with its address; parts that alternate share one."""
        return argument_of(self.name, self.access)

    @property
    def gap(self) -> str:
        """The kernel's argument with the gaps between its rows."""
        return gap_of(self.tensor, self.access)


@dataclass(frozen=True)
class KernelOperand(Accessed):
    """An input of the kernel.

    Args:
        name: its name in the structs and among the kernel's arguments.
        kind: the axes it varies along.
        stream: for random inputs, which of the chain's rng streams it is.
        integer: whether it is stored as int64.
        per_channel: whether the tensor holds one number per channel, spread along `kind`.
        handed: whether an earlier kernel computes it.
        access: how it is read, if it is a part of a tensor.
        float32: whether it is stored in the compute type, not in x's dtype.
    """

    name: str
    kind: Kind
    stream: int = 0
    integer: bool = False
    per_channel: bool = False
    handed: bool = False
    access: Access | None = None
    float32: bool = False

    @property
    def declared(self) -> Kind:
        """The kind of the tensor itself."""
        return Kind.CHANNEL if self.per_channel else self.kind

    @property
    def strided(self) -> bool:
        """Whether there may be gaps between its rows."""
        return self.kind == Kind.FULL and not self.per_channel


@dataclass(frozen=True)
class Element:
    """A field of `Row` that is one element of an operand: the element in the column that an index names.

    Args:
        name: its name in `Row`.
        operand: the operand: a tensor, random numbers, or sums that an earlier kernel left.
        index: the row operand that holds the column's number.
    """

    name: str
    operand: KernelOperand
    index: str
