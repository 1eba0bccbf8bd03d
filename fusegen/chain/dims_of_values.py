"""Tracks the dims along which a value varies from step to step: reductions remove dims, operands add them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from fusegen.atoms.axes import axes_of
from fusegen.chain.layout import CHANNEL_DIM, Layout, channel_from_end
from fusegen.program import Kind
from fusegen.spec.model import Operand, Step

Dims = frozenset[int]


@dataclass(frozen=True)
class Extent:
    """The dims of a value.

    Args:
        rank: how many it has; if a chain takes any number, they count as [rows, cols].
        varies: those of size greater than one, counted from the end.
        moved: whether the channels are no longer its second dim: a step dropped them or a dim before.
        left: which dims of what the chain starts from these are, counted from the end: others were dropped;
            () if it takes any number.
    """

    rank: int
    varies: Dims
    moved: bool = False
    left: tuple[int, ...] = ()

    @classmethod
    def whole(cls, rank: int) -> Extent:
        """Return the extent of a value that varies along all of its dims; 0 stands for any number of them."""
        dims = tuple(range(-rank, 0))
        return cls(rank or 2, frozenset(dims or (-2, -1)), left=dims)

    def spread(self, dims: Iterable[int]) -> Extent:
        """Return the extent with more dims that the value varies along."""
        return replace(self, varies=self.varies.union(dims))

    def kept(self, dims: Iterable[int]) -> Extent:
        """Return the extent with some dims reduced to size one."""
        return replace(self, varies=self.varies.difference(dims))

    def dropped(self, dims: Iterable[int]) -> Extent:
        """Return the extent without some dims."""
        gone = set(dims)
        left = [dim for dim in range(-self.rank, 0) if dim not in gone]
        places = places_of(left)
        varies = frozenset(places[d] for d in self.varies if d in places)
        moved = self.moved or any(dim <= CHANNEL_DIM - self.rank for dim in gone)
        of_x = tuple(self.left[dim] for dim in left) if self.left else ()
        return Extent(len(left), varies, moved, of_x)

    def kind(self, layout: Layout, reach: Extent) -> Kind | None:
        """Return the kind of a value with this extent among rows and columns, or None if it has none.

        Args:
            layout: which dims are the columns.
            reach: the extent of the activation.
        """
        channels = (Kind.CHANNEL,) if self.rank >= 3 else ()
        return layout.kind_along(
            self.varies, (Kind.FULL, Kind.SCALAR, *channels, Kind.ROW, Kind.COL), reach.varies
        )


def places_of(dims: Sequence[int]) -> dict[int, int]:
    """Return the place of each of some dims among these, counted from the end."""
    return {dim: place - len(dims) for place, dim in enumerate(dims)}


def placed(operand: Operand, left: Sequence[int]) -> Operand:
    """Return an operand that lists dims of what its chain starts from with the places that these have in a
    value from which some were dropped.

    Args:
        operand: the operand.
        left: the dims of the value, see `Extent`.
    """
    if operand.dims is None or not left:
        return operand
    places = places_of(left)
    return replace(operand, dims=tuple(places[dim] for dim in operand.dims if dim in places))


def operand_dims(operand: Operand, rank: int, columns: Iterable[int]) -> Dims:
    """Return the dims along which a declared operand may be larger than the value that it meets.

    Args:
        operand: the operand.
        rank: the number of dims that it broadcasts to.
        columns: the columns of its segment.
    """
    if operand.dims is not None:
        return frozenset(operand.dims)
    if operand.kind is Kind.FULL:
        return frozenset(range(-rank, 0))
    if operand.of_channels:
        return frozenset({channel_from_end(rank)})
    return frozenset(columns) if operand.kind is Kind.COL else frozenset()


def extent_after(step: Step, x: Extent, given: Mapping[str, Dims], layout: Layout) -> Extent:
    """Return the extent of a step's value.

    Args:
        step: the step.
        x: the extent of the value before it.
        given: the dims of the operands and values that it names.
        layout: the layout of its segment.
    """
    if step.formula is not None:
        known = {sp.Symbol(name, real=True): dims for name, dims in given.items()}
        known[sp.Symbol("x", real=True)] = x.varies
        own = step.attributes.get("dim")
        columns = frozenset(layout.columns if own is None else _named(own, x.rank))
        return replace(x, varies=_dims_of(step.formula, known, columns))
    assert step.op is not None
    if step.attributes.get("reduction", "none") != "none":
        return x.dropped(range(-x.rank, 0))
    if "keepdim" in step.attributes:
        dims = [d for name in step.op.dims for d in _named(step.attributes[name], x.rank)]
        return x.kept(dims) if step.attributes["keepdim"] else x.dropped(dims)
    if step.op.over == "channel":
        return x.dropped([CHANNEL_DIM - x.rank])
    return x.spread(dim for dims in given.values() for dim in dims)


def _named(dim: object, rank: int) -> tuple[int, ...]:
    """Return the dims that an attribute names, counted from the end, or all of them if it names none."""
    if isinstance(dim, int):
        return (dim % rank - rank,) if rank else ()
    return dim if isinstance(dim, tuple) else tuple(range(-rank, 0))


def _dims_of(expr: sp.Basic, known: Mapping[sp.Symbol, Dims], columns: Dims) -> Dims:
    """Return the dims that a formula varies along. Unknown symbols are numbers; it reduces rows alone."""
    none: Dims = frozenset()
    return axes_of(expr, lambda s: known.get(s, none), lambda _, inner: inner - columns, none)
