"""The byte limit of a backward pass leaves out what it does not move."""

from __future__ import annotations

import pytest

from fusegen.chain import derive
from fusegen.spec import parse
from fusegen.tools.bench.spared import spared_bytes

#: A chain, and how many tensors of the activation's size its backward pass moves less than all of them once.
SPARED = [
    ("chain: [gelu]", 0),
    ("chain: [softmax]", 0),  # it reads the value in x's place
    ("chain: [{mul: 0.5}]", 1),  # x
    ("operands: {r: full}\nchain: [{add: r}, gelu]", 1),  # one gradient for both
    ("operands: {r: full}\nchain: [{rms_norm: {eps: 1e-6}}, {add: r}]", 2),  # r, and its gradient
    (
        "operands: {r: full}\noutputs: [n, h]\n"
        "chain: [{add: {name: h, other: r}}, {rms_norm: {name: n, eps: 1e-6}}]",
        2,  # a summand, and a gradient
    ),
    ("operands: {r: full}\nchain: [{mul: r}, gelu]", 0),
    ("dims: 4\nchain: [{softmax: {dim: 1}}, {softmax: {dim: 3}}]", 0),  # two segments
]


@pytest.mark.parametrize(("text", "tensors"), SPARED)
def test_what_a_backward_pass_does_not_move(text: str, tensors: int) -> None:
    assert spared_bytes(derive(parse(f"{text}\n", "some")), 100) == 100 * tensors
