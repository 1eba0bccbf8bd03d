"""Programs are cut at the sums over rows in their middle."""

from __future__ import annotations

from fusegen.lower import lower
from fusegen.program import Kind, Output, Program
from fusegen.program.builder import Builder


def test_a_program_is_cut_at_sums_over_rows_in_its_middle() -> None:
    """Each sum is finished by a kernel before the one that reads it; what leaves early leaves early."""
    b = Builder()
    x, w = b.input("x", Kind.FULL), b.input("w", Kind.COL)
    total = b.reduce("total", "sum", x, Kind.COL)
    centred = b.map("centred", w.symbol * (x.symbol - total.symbol / b.extent("rows").symbol))
    squares = b.reduce("squares", "sum", b.map("square", centred.symbol**2), Kind.COL)
    y = b.map("y", centred.symbol / squares.symbol)
    outputs = {"y": Output(y, x), "t": Output(total, w), "s": Output(squares, w)}
    kernel = lower(Program("f", tuple(b.inputs), outputs))
    assert [k.name for k in kernel.parts] == ["f_sums", "f_sums2", "f"]
    found = [[(r.name, r.how) for r in k.results] for k in kernel.parts]
    assert found == [
        [("t", "sum"), ("total", "sum")],
        [("s", "sum"), ("squares", "sum")],
        [("y", "store")],
    ]
    assert [[f.name for f in k.inputs.saved if f.handed] for k in kernel.parts] == [
        [],
        ["total"],
        ["total", "squares"],
    ]


def test_a_sample_has_a_kernel_of_its_own() -> None:
    b = Builder()
    x = b.input("x", Kind.FULL)
    near = b.reduce("near", "sum", x, Kind.COL, shift_invariant=True)
    far = b.reduce("far", "sum", x, Kind.COL)
    y = b.map("y", x.symbol - near.symbol / b.extent("sample").symbol + far.symbol)
    kernel = lower(Program("f", tuple(b.inputs), {"y": Output(y, x)}))
    assert [(k.name, k.sampled) for k in kernel.parts] == [
        ("f_sample", True),
        ("f_sums", False),
        ("f", False),
    ]
