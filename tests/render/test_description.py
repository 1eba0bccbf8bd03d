"""What kernel.cpp says of a kernel to its form."""

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
    assert [" ".join(items) for items in described.stages] == [
        "&K::stage0 Keep<&K::Live::gelu> Largest<&K::Out::softmax_max, &K::Row::softmax_max>",
        "&K::stage1 Read<&K::Live::gelu> Keep<&K::Live::softmax_exp> "
        "Sum<&K::Out::softmax_sum, &K::Row::softmax_sum>",
        "&K::stage2 RowLines<&K::row2> Read<&K::Live::softmax_exp> Store<&K::Out::y, &Args::y>",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_each_result_and_each_value_read_is_described(
    name: str, derived: Callable[[str], Chain]
) -> None:
    """What a stage leaves or reads and the description forgets would be a wrong number, not an error."""
    for kernel in kernels(derived(name)):
        described = Description(kernel)
        for stage, items in zip(kernel.stages, described.stages, strict=True):
            text = " ".join(items)
            assert set(re.findall(r"Out::(\w+)", text)) == {out for out, _ in stage.outs}
            assert set(re.findall(r"Read<&K::Live::(\w+)", text)) == set(stage.reads)
            assert set(re.findall(r"Keep<&K::Live::(\w+)", text)) == set(stage.live)
        written = " ".join(item for items in described.stages for item in items)
        written += " ".join(described.row_results)
        results = kernel.results
        elsewhere = {r.name for r in (*results.finals, *results.row_stores)}
        if kernel.stages:
            assert set(re.findall(r"Args::(grad_\w+|y\b)(?<!_gap)", written)) >= {
                r.name for r in results if r.like and r.name not in elsewhere
            }
        read = {f.name for f in (*kernel.inputs.full, *kernel.inputs.rng, *kernel.inputs.spread)}
        assert set(re.findall(r"&K::Full::(\w+)", " ".join(described.inputs))) == read
