"""Terms that add up to nothing: which are left out of a sum, and which are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from fusegen.lower.part import Part
from fusegen.lower.passes.leave_out_centred import leave_out_centred
from fusegen.program import Kind, Output, Program, Reduce
from fusegen.program.builder import Builder
from fusegen.toolchain.pipeline import derive


def backward(*, of: str = "x", factor: str = "late", weight: bool = False) -> Program:
    """y = g + Σ(g + 2 r (x - Σx/n)), where r = Σ g x; with other options not the mean, r or 2 as here."""
    b = Builder()
    x, g, z = (b.input(name, Kind.FULL) for name in "xgz")
    early = b.input("early", Kind.ROW)
    cols = b.extent("cols")
    total = b.reduce("total", "sum", {"x": x, "z": z}[of], Kind.ROW)
    centred = b.map("centred", x.symbol - total.symbol / cols.symbol)
    late = b.reduce("late", "sum", b.map("product", g.symbol * x.symbol), Kind.ROW)
    by = {"late": late, "early": early}[factor]
    doubled = b.map("doubled", (z.symbol if weight else 2) * centred.symbol)
    both = b.map("both", g.symbol + by.symbol * doubled.symbol)
    last = b.reduce("last", "sum", both, Kind.ROW)
    return Program("f", tuple(b.inputs), {"y": Output(b.map("y", g.symbol + last.symbol), x)})


def left(program: Program) -> Program:
    """Return what the operator leaves of a derivative, for which the forward pass saved something."""
    saved = Reduce("saved", Kind.ROW, "sum", program.inputs[0])
    (part,) = leave_out_centred(Part(program, (saved,)))
    return part.program


def terms_of_last(program: Program) -> set[str]:
    (last,) = (v for v in program.nodes() if isinstance(v, Reduce) and v.name == "last")
    return {s.name for s in last.arg.symbol.free_symbols}


def test_what_is_centred_adds_up_to_nothing() -> None:
    program = backward()
    assert terms_of_last(program) == {"both"}
    assert terms_of_last(left(program)) == {"g"}


@pytest.mark.parametrize(
    "other", [{"of": "z"}, {"factor": "early"}, {"weight": True}], ids=["of", "factor", "weight"]
)
def test_what_is_not_stays(other: dict[str, Any]) -> None:
    """x less another tensor's mean, a factor that is known anyway, a factor that varies along the row."""
    program = backward(**other)
    assert left(program) is program


def test_a_layer_norms_backward_waits_for_one_exchange() -> None:
    (segment,) = derive(ROOT / "benchmarks/specs/layer_norm.yaml").segments
    kernels = {k.name: k for mode in segment.modes for k in mode.kernels}
    assert [len(stage.reductions) for stage in kernels["backward"].stages] == [2, 0]


def test_a_saved_sum_keeps_its_shape(tmp_path: Path) -> None:
    """The sum of a layer norm's result less a number is that number for every row: it is saved by row."""
    path = tmp_path / "norm_of_a_shifted_norm.yaml"
    path.write_text("order: 1\nchain:\n  - layer_norm: {bias: -1.0}\n  - layer_norm\n")
    ((mode,),) = (segment.modes for segment in derive(path).segments)
    forward, backward = mode.kernels
    handed = {r.name: r.kind for r in forward.results}
    assert {f.name: f.kind for f in backward.inputs.saved}.items() <= handed.items()
