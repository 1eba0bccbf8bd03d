"""A kernel's inputs: tensors, numbers, random numbers, and single elements of them."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.program import Access, Kind


class Accessed:
    """A tensor of the kernel, or a part of one: its names among the kernel's arguments."""

    name: str
    access: Access

    @property
    def tensor(self) -> str:
        """The name of the tensor that holds it."""
        return self.access.tensor

    @property
    def argument(self) -> str:
        """The kernel's argument with its address.

        Parts that alternate share one: they are read in vectors of both, from where the tensor begins.
        """
        return self.tensor if self.access.step > 1 else self.name

    @property
    def gap(self) -> str:
        """The kernel's argument with the gaps between its rows, which depend on the step of an access."""
        return f"{self.tensor}_pair_gap" if self.access.step > 1 else f"{self.tensor}_gap"


@dataclass(frozen=True)
class KernelOperand(Accessed):
    """An input of the kernel.

    Args:
        name: its name in the structs and among the kernel's arguments.
        kind: the axes it varies along.
        access: how it lies in its tensor.
        stream: for random inputs, which of the chain's rng streams it is.
        saved: whether it is a statistic, which the forward pass saved or an earlier kernel left.
        handed: whether an earlier kernel of the call left it.
    """

    name: str
    kind: Kind
    access: Access
    stream: int = 0
    saved: bool = False
    handed: bool = False

    @property
    def spread(self) -> bool:
        """Whether its tensor varies along fewer axes than it does."""
        return self.access.kind != self.kind

    @property
    def strided(self) -> bool:
        """Whether there may be gaps between its rows."""
        return self.access.kind == Kind.FULL


def statistic(name: str, kind: Kind, *, handed: bool = False) -> KernelOperand:
    """Return what a kernel left in the compute type, as an input."""
    access = Access(name, kind, stored="computed")
    return KernelOperand(name, kind, access, saved=True, handed=handed)


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
