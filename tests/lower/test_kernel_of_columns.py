"""What follows from columns alone: computed once, in a kernel before the one that goes over the rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sympy as sp

from fusegen.atoms import rsqrt
from fusegen.chain import derive
from fusegen.lower import LoweringError, lower
from fusegen.lower.kernel.code import Code
from fusegen.lower.kernel.kernel_of_columns import columns_apart
from fusegen.lower.kernel.results import Results
from fusegen.program import Kind, Output, Program
from fusegen.program.builder import Builder
from fusegen.spec import parse


def normalised(*, exp_by_row: bool, saved: bool = False) -> Program:
    """y = (x rsqrt(v) - b) / Σ over the row, where v follows from two columns; or y without the sum."""
    b = Builder()
    x, w, bias = b.input("x", Kind.FULL), b.input("w", Kind.COL), b.input("b", Kind.COL)
    var = b.map("var", w.symbol**2 + 1)
    scaled = b.map("scaled", x.symbol * rsqrt(var.symbol) - bias.symbol)
    y = scaled
    if exp_by_row:
        total = b.reduce("total", "sum", scaled, Kind.ROW)
        y = b.map("y", scaled.symbol / total.symbol)
    return Program("f", tuple(b.inputs), {"y": Output(y, x)}, (var,) if saved else ())


def test_a_row_kernel_reads_what_was_computed_once_a_column() -> None:
    columns, rows = lower(normalised(exp_by_row=True)).parts
    assert (columns.name, columns.form, rows.form) == ("f_columns", "columns", "rows")
    (factor,) = columns.results
    assert [f.name for f in columns.inputs.col] == ["w"] and str(
        factor.value
    ) == f"col.{factor.name}"
    assert [f.name for f in rows.inputs.col] == ["b", factor.name] and not rows.col_lines
    assert [(f.name, f.handed) for f in rows.inputs.saved] == [(factor.name, True)]


def test_a_thread_that_keeps_its_column_computes_it_itself() -> None:
    (kernel,) = lower(normalised(exp_by_row=False)).parts
    assert kernel.form == "pointwise" and kernel.col_lines


def test_a_statistic_of_columns_is_stored_by_the_kernel_over_columns() -> None:
    columns, rows = lower(normalised(exp_by_row=False, saved=True)).parts
    assert [r.name for r in columns.results if r.name == "var"] == ["var"]
    assert rows.form == "pointwise" and [r.name for r in rows.results] == ["y"]
    assert not rows.col_lines


def test_a_later_part_takes_what_an_earlier_one_has_handed_on() -> None:
    """Two row kernels with a sum over the rows between them need the same factor: it is computed once."""
    b = Builder()
    x, w = b.input("x", Kind.FULL), b.input("w", Kind.COL)
    scaled = b.map("scaled", x.symbol * rsqrt(w.symbol**2 + 1))
    total = b.reduce("total", "sum", scaled, Kind.ROW)
    share = b.map("share", scaled.symbol / total.symbol)
    col = b.reduce("col", "sum", share, Kind.COL)
    y = b.map("y", share.symbol * sp.exp(col.symbol))
    parts = lower(Program("f", tuple(b.inputs), {"y": Output(y, x)})).parts
    assert [k.name for k in parts] == ["f_sums_columns", "f_sums", "f_columns", "f"]
    first, last = ({r.name for r in parts[n].results} for n in (0, 2))
    assert first and last and not first & last
    assert first | last <= {f.name for f in parts[3].inputs.saved if f.handed}


def test_what_an_earlier_part_has_stored_is_not_stored_again() -> None:
    """A batch norm after another: what the first saves is known before it is returned."""
    text = """
outputs: [v1, bn2]
chain:
  - batch_norm: {name: bn1, features: 5}
  - std: {name: v1, dim: -1, keepdim: true}
  - expr: {name: w1, formula: input * tanh(v1)}
  - softmax: {dim: -1}
  - batch_norm: {name: bn2, features: 5}
"""
    (segment,) = derive(parse(text, "twice")).segments
    for mode in segment.modes:
        for kernel in mode.kernels:
            stored = [r.name for part in kernel.parts for r in part.results]
            assert len(stored) == len({*stored})


def test_a_name_that_an_earlier_part_uses_otherwise_is_left_in_place() -> None:
    first, rows = lower(normalised(exp_by_row=True)).parts
    tensors = [f for f in rows.inputs.operands if not f.saved]
    inputs = replace(rows.inputs, operands=(*first.inputs.operands, *tensors))
    whole = replace(rows, inputs=inputs, col_lines=first.col_lines)
    other = replace(first, col_lines=tuple(replace(n, code=Code("T(1)")) for n in first.col_lines))
    assert columns_apart(whole, [other]) == (whole,)
    statistic = replace(first.results[0], name="var")
    with pytest.raises(LoweringError, match="names two values of columns"):
        columns_apart(replace(whole, results=Results((*whole.results, statistic))), [other])
    assert [k.form for k in columns_apart(whole, [first])] == ["rows"]
