"""What a thread keeps live from one stage over a row to the next."""

from __future__ import annotations

import pytest
from conftest import ROOT
from shared.small_programs import X, program_of

from fusegen.atoms import row_sum
from fusegen.lower import lower
from fusegen.ops import call, find
from fusegen.program import Kind, Output, Program, Reduce
from fusegen.program.builder import Builder
from fusegen.program.calculus import vjp
from fusegen.program.from_formula import formula_value
from fusegen.toolchain.pipeline import derive


def test_factors_known_before_the_sum_are_kept_as_one_product() -> None:
    """gelu'(x) e (g - d) / s: a thread keeps gelu'(x) e, not both."""
    gelu = find("gelu")
    program = program_of(call(find("softmax"), call(gelu, X, {}, {}), {}, {}))
    saved = [v for v in program.nodes() if isinstance(v, Reduce)]
    kernel = lower(vjp(program, "backward"), given=saved)
    assert [len(stage.live) for stage in kernel.stages] == [1, 0]


def test_what_follows_from_a_tensor_cheaply_is_computed_anew() -> None:
    """x - mean is one addition: a thread keeps x as it was read, which in 16 bits is half as much."""
    kernel = lower(program_of(call(find("rms_norm"), X - row_sum(X), {}, {"eps": 1e-6})))
    assert [stage.live for stage in kernel.stages] == [(), (), ()]
    assert kernel.live.between[-1] == (1, 0)


def test_what_reads_an_operand_is_kept() -> None:
    """A thread that computed x + b anew would load b for each stage."""
    b = Builder()
    x, bias = b.input("x", Kind.FULL), b.input("b", Kind.COL)
    shifted = formula_value(b, "shifted", X + bias.symbol)
    value = formula_value(b, "op", call(find("rms_norm"), shifted.symbol, {}, {"eps": 1e-6}))
    first, last = lower(Program("f", tuple(b.inputs), {"y": Output(value, x)})).stages
    assert first.live == ("shifted",)
    assert not last.full_reads


def test_a_product_that_a_late_value_adds_is_kept_as_one() -> None:
    """The backward of an RMS norm is w r g + c x, where c is known late: a thread keeps w r g."""
    b = Builder()
    x = b.input("x", Kind.FULL)
    weight = b.input("w", Kind.COL)
    value = formula_value(
        b, "op", call(find("rms_norm"), X, {"weight": weight.symbol}, {"eps": 1e-6})
    )
    program = Program("f", tuple(b.inputs), {"y": Output(value, x)})
    saved = [v for v in program.nodes() if isinstance(v, Reduce)]
    first, last = lower(vjp(program, "backward"), given=saved).stages
    assert len(first.live) == 1
    assert last.full_reads == {"x"}


@pytest.mark.parametrize("name", ["layer_norm", "group_norm"])
def test_what_is_computed_anew_is_computed_where_it_is_used_alone(name: str) -> None:
    """Their backward takes 2 (x - mean) after the sums: the stage that makes these has no such line."""
    (mode,) = derive(ROOT / "benchmarks" / "specs" / f"{name}.yaml").modes
    for kernel in mode.kernels:
        for stage in kernel.stages:
            results = {r.value for r in (*stage.reductions, *stage.results)}
            for number, line in enumerate(stage.lines):
                read = results.union(*(later.code.reads for later in stage.lines[number + 1 :]))
                assert line.name in stage.live or line.target in read, line


def test_what_follows_from_one_tensor_waits_until_it_is_used() -> None:
    """log_softmax's backward is g - exp(x - max) c, where c is known late: a thread keeps x, not exp."""
    program = program_of(call(find("log_softmax"), X, {}, {}))
    saved = [v for v in program.nodes() if isinstance(v, Reduce)]
    kernel = lower(vjp(program, "backward"), given=saved)
    first, last = kernel.stages
    assert not first.lines
    assert any("::exp(" in line.code.text for line in last.lines)
    assert not kernel.live.any_computed
