"""A function that a kernel calls instead of a formula: one polynomial per precision."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FittedBranch:
    """What a fitted function computes in one precision, and a description of its accuracy."""

    precision: str
    accuracy: str
    code: str


@dataclass(frozen=True)
class FittedFunction:
    """A function of one variable `x` that polynomials approximate on an interval.

    Args:
        name: its name.
        formula: the formula and the interval, for the comment.
        squared: whether the polynomials are in square = x^2.
        branches: one for each precision that has a polynomial.
        exact: the formula itself, for the other precisions.
    """

    name: str
    formula: str
    squared: bool
    branches: tuple[FittedBranch, ...]
    exact: str
