"""Which dims the axes of a layout have, and what kind an operand along some of them is."""

from __future__ import annotations

import pytest

from fusegen.chain.layout import Layout
from fusegen.program import Kind

#: Layouts with the kind of an operand with one number per channel, as a program sees it.
LAYOUTS = {
    "a matrix": (Layout(2), Kind.COL),
    "any number of dims": (Layout(), Kind.COL),
    "over the channels": (Layout(4, -3, -3), Kind.COL),
    "over the last dim": (Layout(4), Kind.ROW),
    "over the dims after the channel": (Layout(4, -2, -1), Kind.ROW),
    "over the channels and what follows": (Layout(4, -3, -1), Kind.FULL),
    "groups of channels": (Layout(4, -3, -1, groups=2), Kind.FULL),
    "modulation of samples": (Layout(3, axis=(-3, -1)), Kind.FULL),
    "a bias of heads": (Layout(4, axis=(-3, -2)), Kind.ROW),
}


@pytest.mark.parametrize(("layout", "kind"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_channel_is_some_dims_of_rows_and_columns(layout: Layout, kind: Kind) -> None:
    assert layout.kind_of(Kind.CHANNEL) == kind
    assert layout.spreads == (kind != Kind.COL)


@pytest.mark.parametrize(("layout", "kind"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_dims_of_a_kind_are_those_of_its_axes(layout: Layout, kind: Kind) -> None:
    dims = range(-(layout.rank or 3), 0)
    rows, columns = (layout.dims_of(axis, dims) for axis in (Kind.ROW, Kind.COL))
    assert not rows & columns and layout.dims_of(Kind.SCALAR, dims) == frozenset()
    assert rows | columns == layout.dims_of(Kind.FULL, dims) == frozenset(dims)
    if layout.groups is None:  # a group is a part of the channels
        assert layout.dims_of(Kind.CHANNEL, dims) <= layout.dims_of(kind, dims)


def test_a_reduced_value_keeps_the_dims_of_the_rows() -> None:
    layout = Layout(4, -3, -2)
    shapes = [layout.shape_after((2, 3, 5, 7), outline) for outline in ("like", "row", "keepdim")]
    assert shapes == [(2, 3, 5, 7), (2, 7), (2, 1, 1, 7)]
