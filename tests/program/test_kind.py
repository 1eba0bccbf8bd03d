"""Kinds are sets of axes: broadcasting joins them, and a reduction leaves some."""

from __future__ import annotations

import pytest
import sympy as sp

from fusegen.atoms import (
    ROW_FUNCTIONS,
    ColumnSum,
    Reduction,
    RowSum,
    SampleSum,
    Total,
    exp,
    let,
    row_max,
)
from fusegen.program import Kind, joined, kind_of_formula, topological
from fusegen.program.builder import Builder
from fusegen.program.from_formula import formula_value
from fusegen.program.kind import kept

KINDS = {"x": Kind.FULL, "w": Kind.COL, "r": Kind.ROW, "s": Kind.SCALAR}
X, W, R, S = (sp.Symbol(name, real=True) for name in KINDS)


def test_an_expression_varies_along_every_axis_of_its_values() -> None:
    assert joined([]) == Kind.SCALAR
    assert joined([Kind.ROW, Kind.SCALAR]) == Kind.ROW
    assert joined([Kind.ROW, Kind.COL]) == Kind.FULL


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_is_known_by_its_extents(kind: Kind) -> None:
    assert Kind.along(kind.extents) == kind
    assert [Kind.along([extent]) for extent in kind.extents] == list(kind)


@pytest.mark.parametrize("kind", [Kind.SCALAR, Kind.ROW, Kind.COL, Kind.FULL, Kind.CHANNEL])
def test_a_shape_names_the_extents(kind: Kind) -> None:
    shapes = {"full": "[rows, cols]", "col": "[cols]", "row": "[rows]", "scalar": "[]"}
    assert kind.shape == {**shapes, "channel": "[channels]"}[kind.label]


@pytest.mark.parametrize(
    ("reduction", "left"),
    [
        *((function, Kind.ROW) for function in ROW_FUNCTIONS),
        (ColumnSum, Kind.COL),
        (SampleSum, Kind.COL),
        (Total, Kind.SCALAR),
    ],
)
def test_a_reduction_removes_the_axes_that_it_declares(
    reduction: type[Reduction], left: Kind
) -> None:
    arguments = (X, R) if reduction.op == "take" else (X,)
    assert kept(reduction(*arguments)) == left


@pytest.mark.parametrize(
    ("formula", "kind"),
    [
        (W * S, Kind.COL),
        (exp(W) + R, Kind.FULL),
        (X - row_max(X), Kind.FULL),
        (row_max(X) * S, Kind.ROW),
        (RowSum(W), Kind.ROW),  # a number for each row, though all are equal
        (ColumnSum(X) * W, Kind.COL),
        (Total(X * W), Kind.SCALAR),
        (let("x", RowSum(X)), Kind.ROW),  # its name is none of a value
    ],
)
def test_a_formula_has_the_axes_of_its_symbols_without_those_that_it_reduces(
    formula: sp.Expr, kind: Kind
) -> None:
    assert kind_of_formula(formula, lambda symbol: KINDS[symbol.name]) == kind


@pytest.mark.parametrize(
    ("formula", "counted"),
    [(RowSum(R), {"cols"}), (ColumnSum(W), {"rows"}), (Total(S), {"rows"}), (Total(R), set())],
)
def test_a_sum_counts_the_elements_of_an_axis_along_which_nothing_varies(
    formula: sp.Expr, counted: set[str]
) -> None:
    builder = Builder()
    for name, kind in KINDS.items():
        builder.input(name, kind)
    names = {v.name for v in topological([formula_value(builder, "op", formula)])}
    assert names & {"rows", "cols"} == counted
