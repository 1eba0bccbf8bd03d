"""The kinds and the shapes of a forward pass's outputs that have not all dims of x."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["KIND_OF_OUTLINE", "OF_ALL_ROWS", "reduced_shape"]

#: The kind of an output by its outline: "dropped" is x's shape without its columns, "alone" has these alone,
#: "half" is that of one half.
KIND_OF_OUTLINE = {
    "keepdim": "row",
    "row": "dropped",
    "col_keepdim": "col",
    "col": "alone",
    "scalar": "scalar",
    "half": "half",
}
#: The outlines of values that depend on all rows.
OF_ALL_ROWS = frozenset({"scalar", "col_keepdim", "col"})


def reduced_shape(kind: str, shape: Sequence[int], columns: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of an output with one number per row or per column.

    Args:
        kind: the output's kind.
        shape: the activation's shape.
        columns: the first and the last dim along which a row runs, counted from the end.
    """
    first, last = (dim % len(shape) for dim in columns)
    by_column, ones = kind in ("col", "alone"), kind in ("row", "col")
    sizes = [
        size if (first <= dim <= last) == by_column else 1 if ones else None
        for dim, size in enumerate(shape)
    ]
    return tuple([size for size in sizes if size is not None])
