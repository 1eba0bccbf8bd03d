"""Reductions: of each row to one value, or, without `dim`, of the whole tensor to one number.

`argmax` and `argmin` give the number of a column, of int64; in a row with NaN, that of the first. No step
goes on from it: it is the last step's value, or one of several outputs. It has no gradient.
"""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import (
    COLS,
    COLUMN,
    ROWS,
    absolute,
    infinity,
    let,
    raised,
    row_max,
    row_mean,
    row_shift,
    row_sum,
    sqrt,
    straight_through,
    total,
    undefined,
    where,
)
from fusegen.ops.declare import RefusedError, op

#: Of no row are the units smaller, so that their reciprocal is finite.
_SMALL = sp.Float(1e-37)
_UNBIASED = {"unbiased": "give correction: 1 for true, 0 for false"}


@op("sum", dims=("dim",), several=True)
def sum_(x: sp.Expr, *, dim: int | None = None, keepdim: bool = False) -> sp.Expr:
    """The sum over a row; without dim, over all elements. torch.sum."""
    _check_kept(dim, keepdim)
    return total(x) if dim is None else row_sum(x)


@op("mean", dims=("dim",), several=True)
def mean(x: sp.Expr, *, dim: int | None = None, keepdim: bool = False) -> sp.Expr:
    """The mean over a row; without dim, over all elements. torch.mean."""
    _check_kept(dim, keepdim)
    return total(x) / (ROWS * COLS) if dim is None else row_mean(x)


@op("amax", dims=("dim",), several=True)
def amax(x: sp.Expr, *, dim: int, keepdim: bool = False) -> sp.Expr:
    """A row's largest value; equal ones share the gradient. torch.amax."""
    return row_max(x)


@op("amin", dims=("dim",), several=True)
def amin(x: sp.Expr, *, dim: int, keepdim: bool = False) -> sp.Expr:
    """A row's smallest value; equal ones share the gradient. torch.amin."""
    return -row_max(-x)


@op("max", dims=("dim",), refused={"other": "of two tensors, write maximum"})
def max_(x: sp.Expr, *, dim: int, keepdim: bool = False) -> sp.Expr:
    """A row's largest value; the first of equal ones gets the gradient. torch.max, its values."""
    return _first(x, x, 1)


@op("min", dims=("dim",), refused={"other": "of two tensors, write minimum"})
def min_(x: sp.Expr, *, dim: int, keepdim: bool = False) -> sp.Expr:
    """A row's smallest value; the first of equal ones gets the gradient. torch.min, its values."""
    return _first(x, let("negative", -x), -1)


def _first(x: sp.Expr, ranked: sp.Expr, sign: int) -> sp.Expr:
    """The largest of `ranked`, in its sign, with the derivative of the first of the elements that have it."""
    largest = row_shift(ranked)
    place = let("place", where(ranked < largest, COLS, where(ranked >= largest, COLUMN, -1)))
    first = let("first", -row_shift(-place))
    return straight_through(sign * largest, row_sum(where(sp.Eq(COLUMN, first), x, 0)))


@op("argmax", dims=("dim",), indexes=True)
def argmax(x: sp.Expr, *, dim: int, keepdim: bool = False) -> sp.Expr:
    """The number of the column with a row's largest value, of equal ones the first. torch.argmax."""
    return _first_column(x)


@op("argmin", dims=("dim",), indexes=True)
def argmin(x: sp.Expr, *, dim: int, keepdim: bool = False) -> sp.Expr:
    """The number of the column with a row's smallest value, of equal ones the first. torch.argmin."""
    return _first_column(let("negative", -x))


def _first_column(ranked: sp.Expr) -> sp.Expr:
    """The number of the first column with the largest value. A row with NaN has NaN for its largest value."""
    largest = row_shift(ranked)
    is_nan = where(ranked <= infinity, COLS, COLUMN)
    place = let("place", where(ranked < largest, COLS, where(ranked >= largest, COLUMN, is_nan)))
    return -row_shift(-place)


@op("var", dims=("dim",), several=True, refused=_UNBIASED)
def var(x: sp.Expr, *, dim: int, correction: int = 1, keepdim: bool = False) -> sp.Expr:
    """sum (x - mean)^2 / (cols - correction) over a row. torch.var."""
    return _variance(let("centred", x - row_mean(x)), correction)


def _variance(centred: sp.Expr, correction: int) -> sp.Expr:
    added = let("squares", row_sum(centred**2))
    if correction <= 1:
        return added / (COLS - correction)
    # With fewer columns torch divides by 0, but not in the derivative.
    by_zero = where(added > 0, infinity, undefined)
    return added / (COLS - correction) + where(correction > COLS, by_zero, 0)


@op("std", dims=("dim",), several=True, refused=_UNBIASED)
def std(x: sp.Expr, *, dim: int, correction: int = 1, keepdim: bool = False) -> sp.Expr:
    """The root of sum (x - mean)^2 / (cols - correction); the derivative at 0 is 0. torch.std."""
    # In units of the largest magnitude no square overflows, and none is lost below the smallest number.
    largest = let("largest", row_shift(absolute(x)))
    unit = let("unit", where(largest < _SMALL, _SMALL, largest))
    scaled = let("scaled", let("centred", x - row_mean(x)) / unit)
    variance = let("var", _variance(scaled, correction))
    return where(variance <= 0, 0, unit * sqrt(variance))


@op("norm", dims=("dim",), several=True, choices={"p": ("inf", "-inf")})
def norm(x: sp.Expr, *, p: float = 2.0, dim: int | None = None, keepdim: bool = False) -> sp.Expr:
    """(sum |x|^p)^(1/p), for p = inf the largest |x|; over a row, without dim over all. torch.norm."""
    _check_kept(dim, keepdim)
    if p in (sp.oo, -sp.oo):
        return _largest(absolute(x), p, dim)
    added = let("power", (total if dim is None else row_sum)(_powered(x, sp.sympify(p))))
    return added if p in (0, 1) else where(added <= 0, 0, raised(added, 1 / p))


def _check_kept(dim: int | None, keepdim: bool) -> None:
    """Refuse to keep dims of the one number that there is without a dim.

    Raises:
        RefusedError: keepdim is true.
    """
    if dim is None and keepdim:
        raise RefusedError("gives one number without a dim; leave keepdim out, or name the dims")


def _largest(size: sp.Expr, p: float, dim: int | None) -> sp.Expr:
    if dim is None:
        raise RefusedError("with p inf needs a dim")
    return row_max(size) if p > 0 else -row_max(-size)


def _powered(x: sp.Expr, p: sp.Expr) -> sp.Expr:
    """Return |x|^p; its derivative at 0 is 0."""
    if p == 0:
        return where(sp.Eq(x, 0), 0, 1)
    size = x**p if p.is_even else raised(absolute(x), p)
    return size if p.is_Integer else where(sp.Eq(x, 0), 0, size)
