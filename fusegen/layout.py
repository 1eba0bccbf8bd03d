"""How the dims of the activation become rows and columns.

A row is what the chain reduces over: one dim or several neighbouring ones, wherever they stand.
What is behind them is `inner`: column c of row (o, n) is element (o * cols + c) * inner + n. A
chain without reductions takes the dims behind the channel for its columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fusegen.program import Kind

#: The dim of the channels in an activation of three dims or more, as torch has it.
CHANNEL_DIM = 1


@dataclass(frozen=True)
class Layout:
    """Rows and columns of an activation.

    Args:
        rank: the number of dims; 0 for any, where the columns are the last.
        first, last: the dims that make up the columns, both included, counted from the end: -1 is
            the last.
    """

    rank: int = 0
    first: int = -1
    last: int = -1

    @property
    def channel_kind(self) -> Kind:
        """The kind that an operand with one number a channel has in a program."""
        if self.rank < 3:
            return Kind.COL  # the last dim is the channel
        first, last = self.rank + self.first, self.rank + self.last
        if first > CHANNEL_DIM:
            return Kind.ROW
        return Kind.COL if first == last == CHANNEL_DIM else Kind.FULL

    @property
    def spreads(self) -> bool:
        """Whether an operand with one number a channel is smaller than the kind it has."""
        return self.rank >= 3 and self.channel_kind != Kind.COL

    @property
    def columns(self) -> tuple[int, ...]:
        """The dims that make up the columns, counted from the end."""
        return tuple(range(self.first, self.last + 1))

    @property
    def strided(self) -> bool:
        """Whether the columns of a row may lie apart in memory."""
        return self.last < -1

    @property
    def shape(self) -> str:
        """The columns' dims in words, for messages."""
        if self.rank == 0 or self.first == self.last:
            return f"dim {self.first if self.rank == 0 else self.rank + self.first}"
        return f"dims {self.rank + self.first} to {self.rank + self.last}"


def pointwise_layout(rank: int, kinds: Iterable[Kind]) -> Layout:
    """Return the layout of a chain without reductions.

    Args:
        rank: the number of dims, or 0 for any.
        kinds: those of its operands.
    """
    if rank < 3 or Kind.COL in set(kinds):
        return Layout(rank if rank >= 3 else 0)
    return Layout(rank, first=CHANNEL_DIM + 1 - rank)
