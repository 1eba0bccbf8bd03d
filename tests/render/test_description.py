"""What form.h says of a kernel to its form."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from conftest import NAMES

from fusegen.chain import Chain
from fusegen.lower.kernel.kernel import Kernel
from fusegen.render.description import Description


def kernels(chain: Chain) -> list[Kernel]:
    return [
        part
        for segment in chain.segments
        for mode in segment.modes
        for kernel in mode.kernels
        for part in kernel.parts
    ]


def test_the_stages_of_a_softmax(derived: Callable[[str], Chain]) -> None:
    described = Description(kernels(derived("matmul_gelu_softmax"))[0])
    assert described.form == "rows"
    assert described.inputs == (
        "Full<&K::Full::x, &Args::x, &Args::x_gap>",
        "Col<&K::Col::linear_bias, &Args::linear_bias, S>",
    )
    assert described.stages == (
        "Stage<&K::stage0, Uses<&K::Full::x>, UsesColumns, Keep<&K::Live::gelu>, "
        "Largest<&K::Out::softmax_max, &K::Row::softmax_max>, Provisional>",
        "Stage<&K::stage1, Read<&K::Live::gelu>, Keep<&K::Live::softmax_exp>, "
        "Sum<&K::Out::softmax_sum, &K::Row::softmax_sum>, Shifted<&K::Row::softmax_max>>",
        "Stage<&K::stage2, RowLines<&K::row2, &K::Row::softmax_sum_inverse>, "
        "Read<&K::Live::softmax_exp>, Rescaled<&K::Live::softmax_exp>, Store<&K::Out::y, &Args::y>>",
    )
    assert described.results == (
        "RowStore<&K::Row::softmax_max, &Args::softmax_max, T>",
        "RowStore<&K::Row::softmax_sum, &Args::softmax_sum, T>",
    )


@pytest.mark.parametrize("name", NAMES)
def test_each_result_and_each_value_read_is_described(
    name: str, derived: Callable[[str], Chain]
) -> None:
    """What a stage leaves or reads and the description forgets would be a wrong number, not an error."""
    for kernel in kernels(derived(name)):
        described = Description(kernel)
        for stage, text in zip(kernel.stages, described.stages, strict=True):
            assert set(re.findall(r"Out::(\w+)", text)) == {out for out, _ in stage.outs}
            assert set(re.findall(r"Read<&K::Live::(\w+)", text)) == set(stage.reads)
            assert set(re.findall(r"Keep<&K::Live::(\w+)", text)) == set(stage.live)
            assert set(re.findall(r"Rescaled<&K::Live::(\w+)", text)) == set(stage.rescaled)
            assert set(re.findall(r"Uses<&K::Full::(\w+)", text)) == set(stage.full_reads)
            assert ("UsesColumns" in text) == bool(stage.reads_of("col"))
            assert ("Provisional" in text) == stage.provisional
        written = " ".join((*described.stages, *described.results))
        stored = set(re.findall(r"&Args::(\w+)", written))
        assert stored >= {r.name for r in kernel.results}
        inputs, said = kernel.inputs, " ".join(described.inputs)
        read = {f.name for f in (*inputs.operands, *inputs.aside, *inputs.attributes)}
        assert set(re.findall(r"&Args::(\w+)", said)) >= read - {f.name for f in inputs.aside}
        assert set(re.findall(r"Rng<&K::Full::(\w+)", said)) == {f.name for f in inputs.rng}
