"""How the dims of the activation become rows and columns.

A chain reduces over rows. A row is one dim or several, wherever they are, or the channels
of a group with all dims after them. The dims after the columns are `inner`: column c of row (o, n) is element
(o * cols + c) * inner + n. In a chain without reductions, the dims after the channel are the columns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from fusegen.atoms import HALVES, Partition
from fusegen.program import Kind, Outline, kind_of_outline

#: The dim of the channels in an activation of three dims or more, as in torch.
CHANNEL_DIM = 1


def channel_from_end(rank: int) -> int:
    """Return the channel dim of an activation with `rank` dims, counted from the end."""
    return CHANNEL_DIM - rank if rank >= 3 else -1


@dataclass(frozen=True)
class Layout:
    """Rows and columns of an activation.

    Args:
        rank: the number of dims; 0 for any number, with the last dim as columns.
        first, last: the dims that make up the columns, both included, counted from the end: -1 is the last.
        groups: the number of groups into which the channels are split, or the argument that holds it; None if
            they are not split. `first` is then the channel, and each group is a row, so there are more rows.
        halved: the dim along which the tensor has two halves or more parts, counted from the end; the
            activation has the shape of one part. 0 if the tensor itself is the activation.
        partition: how these parts lie along that dim.
        apart: the dims that make up the columns, counted from the end, if they are no neighbours. Kernels
            then take views whose last dims they are, and `first` and `last` are these.
        axis: the dims along which an operand of kind channel varies, counted from the end, if these are
            others than the channel: see `chain/third_axis.py`.
    """

    rank: int = 0
    first: int = -1
    last: int = -1
    groups: int | str | None = None
    halved: int = 0
    partition: Partition = HALVES
    axis: tuple[int, ...] = ()
    apart: tuple[int, ...] = ()

    @classmethod
    def over(cls, rank: int, dims: Sequence[int]) -> Layout:
        """Return the layout whose columns are some dims, in order and counted from the end."""
        if [*dims] == [*range(dims[0], dims[-1] + 1)]:
            return cls(rank, dims[0], dims[-1])
        return cls(rank, -len(dims), -1, apart=tuple(dims))

    @property
    def order(self) -> tuple[int, ...]:
        """The dims in the order of the views that kernels take, counted from the end, if it is another."""
        rows = [dim for dim in range(-self.rank, 0) if dim not in self.apart]
        return (*rows, *self.apart) if self.apart else ()

    @property
    def reordered(self) -> bool:
        """Whether rows are counted in another order than that of the dims: those that differ along the third
        axis are neighbours.

        Elements with one number of the axis are then neighbours too, apart from the rest of the rows.
        """
        rows = [dim for dim in self.axis if dim < self.first]
        return len(rows) < len(self.axis) and rows != [*range(self.first - len(rows), self.first)]

    @property
    def by_sample(self) -> bool:
        """Whether the third axis is that of samples and their channels, of which rows are groups."""
        return self.groups is not None and bool(self.axis)

    @property
    def axis_bits(self) -> int:
        """The dims of the third axis as bits: bit n for dim -1 - n."""
        return sum(1 << (-1 - dim) for dim in self.axis)

    def half(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the activation's shape for a tensor of this shape."""
        return self.with_parts(shape, 1)

    def with_parts(self, shape: Sequence[int], count: int) -> tuple[int, ...]:
        """Return the shape of so many of the parts of a tensor of this shape."""
        place = len(shape) + self.halved if self.halved else -1
        whole = self.partition.parts
        return tuple(n // whole * count if d == place else n for d, n in enumerate(shape))

    @property
    def columns(self) -> tuple[int, ...]:
        """The dims that make up the columns, counted from the end."""
        return self.apart or tuple(range(self.first, self.last + 1))

    def dims_of(self, kind: Kind, reach: Iterable[int] | None = None) -> frozenset[int]:
        """Return the dims that a kind varies along, counted from the end: those of each of its axes.

        Args:
            kind: the kind.
            reach: the dims along which the activation varies, by default all that the layout has.
        """
        dims = frozenset(range(-max(self.rank, 1), 0) if reach is None else reach)
        of_axis = {
            Kind.ROW: dims.difference(self.columns),
            Kind.COL: dims.intersection(self.columns),
            Kind.CHANNEL: self.axis or (channel_from_end(self.rank),),
        }
        return frozenset(dim for axis in kind for dim in of_axis[axis])

    def kind_along(
        self, dims: Collection[int], kinds: Iterable[Kind], reach: Iterable[int] | None = None
    ) -> Kind | None:
        """Return the first of some kinds that varies along these dims, or None if none does.

        Where rows are groups of channels, dims say nothing of rows and columns.

        Args:
            dims: the dims, counted from the end.
            kinds: the kinds.
            reach: as for `dims_of`.
        """
        grouped = (Kind.ROW, Kind.COL) if self.groups is not None else ()
        found = (kind for kind in kinds if self.dims_of(kind, reach) == frozenset(dims))
        return next((kind for kind in found if kind not in grouped), None)

    def kind_of(self, kind: Kind) -> Kind:
        """Return the kind that an operand of a kind has in a program: an axis beside rows and columns is some
        dims of these."""
        if kind is not Kind.CHANNEL:
            return kind
        own, columns = self.dims_of(kind), self.dims_of(Kind.COL)
        if self.groups is not None or (own & columns and own != columns):
            return Kind.FULL
        return Kind.COL if own == columns else Kind.ROW

    @property
    def spreads(self) -> bool:
        """Whether an operand with one number per channel is smaller than its kind."""
        return self.kind_of(Kind.CHANNEL) != Kind.COL

    @property
    def strided(self) -> bool:
        """Whether a row's columns may be non-adjacent in memory, also if the channel comes after them.

        Columns that are no neighbours are adjacent in some orders of strides: with channels last, all dims
        but these are.

        Kernels read halves that alternate in vectors of both, which must be adjacent.
        """
        if self.halved and self.partition.alternating:
            return False
        after = self.rank >= 3 and self.rank + self.first == CHANNEL_DIM + 1
        return self.last < -1 or bool(self.apart) or (after and self.groups is None)

    def shape_after(self, shape: Sequence[int], outline: Outline) -> tuple[int, ...]:
        """Return the shape of an outline for a tensor of this shape."""
        if outline == "like":
            return tuple(shape)
        if outline == "scalar":
            return ()
        shape = self.half(shape)
        if outline == "half":
            return shape
        dims = range(-len(shape), 0)
        own, sizes = self.dims_of(kind_of_outline(outline), dims), zip(dims, shape, strict=True)
        if outline in ("row", "col"):
            return tuple(size for dim, size in sizes if dim in own)
        return tuple(size if dim in own else 1 for dim, size in sizes)

    @property
    def shape(self) -> str:
        """The columns' dims in words, for messages."""
        if self.groups is not None:
            return f"{self.groups} groups of channels"
        if self.apart:
            return f"dims {', '.join(str(self.rank + dim) for dim in self.apart)}"
        if self.rank == 0 or self.first == self.last:
            return f"dim {self.first if self.rank == 0 else self.rank + self.first}"
        return f"dims {self.rank + self.first} to {self.rank + self.last}"


def pointwise_layout(rank: int, kinds: Iterable[Kind], halved: int = 0) -> Layout:
    """Return the layout of a chain without reductions.

    Args:
        rank: the number of dims, or 0 for any number.
        kinds: the kinds of its operands.
        halved: see `Layout`; the two halves of a row are adjacent.
    """
    if rank < 3 or Kind.COL in set(kinds):
        return Layout(rank if rank >= 3 else 0)
    return Layout(rank, first=max(CHANNEL_DIM + 1 - rank, halved or -rank))
