"""How the dims of the activation become rows and columns.

A row is what the chain reduces over: one dim or several neighbouring ones, wherever they stand, or the
channels of a group with all dims after them. What is after the columns is `inner`: column c of row
(o, n) is element (o * cols + c) * inner + n. A chain without reductions takes the dims after the channel
for its columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusegen.program import Kind, Outline

#: The dim of the channels in an activation of three dims or more, as torch has it.
CHANNEL_DIM = 1


def channel_from_end(rank: int) -> int:
    """Return the dim of the channels of an activation of so many dims, counted from the end."""
    return CHANNEL_DIM - rank if rank >= 3 else -1


@dataclass(frozen=True)
class Layout:
    """Rows and columns of an activation.

    Args:
        rank: the number of dims; 0 for any, where the columns are the last.
        first, last: the dims that make up the columns, both included, counted from the end: -1 is
            the last.
        groups: where the channel is cut into groups, and `first` is the channel: the number of groups, or
            the argument that holds it. A row is then a group, and there are so many times more of them.
        halved: the dim along which the tensor has two halves, of which the activation is made, counted from
            the end; 0 where the tensor is the activation.
    """

    rank: int = 0
    first: int = -1
    last: int = -1
    groups: int | str | None = None
    halved: int = 0

    @property
    def halves_channels(self) -> bool:
        """Whether the halves are of the channels."""
        return self.halved == channel_from_end(self.rank)

    def half(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the activation's shape, given that of the tensor."""
        place = len(shape) + self.halved
        return tuple(n // 2 if self.halved and d == place else n for d, n in enumerate(shape))

    @property
    def channel_kind(self) -> Kind:
        """The kind that an operand with one number a channel has in a program."""
        if self.groups is not None:
            return Kind.FULL
        if self.rank < 3:
            return Kind.COL  # the last dim is the channel
        first, last = self.rank + self.first, self.rank + self.last
        if not first <= CHANNEL_DIM <= last:
            return Kind.ROW
        return Kind.COL if first == last else Kind.FULL

    @property
    def spreads(self) -> bool:
        """Whether an operand with one number a channel is smaller than the kind it has."""
        return self.channel_kind != Kind.COL

    @property
    def columns(self) -> tuple[int, ...]:
        """The dims that make up the columns, counted from the end."""
        return tuple(range(self.first, self.last + 1))

    @property
    def strided(self) -> bool:
        """Whether the columns of a row may lie apart in memory, also because the channel lies after them."""
        after = self.rank >= 3 and self.rank + self.first == CHANNEL_DIM + 1
        return self.last < -1 or (after and self.groups is None)

    def shape_after(self, shape: Sequence[int], outline: Outline) -> tuple[int, ...]:
        """Return the shape of an outline, from that of the tensor."""
        if outline == "like":
            return tuple(shape)
        if outline == "scalar":
            return ()
        shape = self.half(shape)
        if outline == "half":
            return shape
        columns = {dim % len(shape) for dim in self.columns}
        if outline == "row":
            return tuple(s for d, s in enumerate(shape) if d not in columns)
        return tuple(1 if d in columns else s for d, s in enumerate(shape))

    @property
    def shape(self) -> str:
        """The columns' dims in words, for messages."""
        if self.groups is not None:
            return f"{self.groups} groups of channels"
        if self.rank == 0 or self.first == self.last:
            return f"dim {self.first if self.rank == 0 else self.rank + self.first}"
        return f"dims {self.rank + self.first} to {self.rank + self.last}"


def pointwise_layout(rank: int, kinds: Iterable[Kind], halved: int = 0) -> Layout:
    """Return the layout of a chain without reductions.

    Args:
        rank: the number of dims, or 0 for any.
        kinds: those of its operands.
        halved: see `Layout`; the halves of a row lie after one another.
    """
    if rank < 3 or Kind.COL in set(kinds):
        return Layout(rank if rank >= 3 else 0)
    return Layout(rank, first=max(CHANNEL_DIM + 1 - rank, halved or -rank))
