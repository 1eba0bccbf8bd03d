"""Dims of steps after a product in the middle of a spec: the last one alone."""

from __future__ import annotations

import pytest

from fusegen import chain, spec
from fusegen.base.errors import SpecError

_PRODUCT = """
dims: 3
chain:
  - gelu: {name: v}
  - linear: {name: m, in_features: 6, out_features: 6}
"""
_BOTH = "  - expr: {name: both, formula: v * tanh(m)}\n"


@pytest.mark.parametrize("named", ["", _BOTH])
@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("softmax: {dim: 1}", "dim 1 is not the last of 3"),
        ('expr: {formula: "a * tanh(b)", parts: [a, b], dim: 1}', "dim 1 is not the last of 3"),
        ("softmax: {dim: [1, 2]}", "several dims"),  # it was computed over the last dim alone
    ],
)
def test_other_dims_are_refused(named: str, step: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec.parse(f"{_PRODUCT}{named}  - {step}\n", "after_product")


def test_an_operand_that_lists_its_dims_has_those_of_x() -> None:
    start = "  - gelu: {name: v}\n  - expr: {name: w, formula: swish(t)}\n"
    product = _PRODUCT.replace("  - gelu: {name: v}\n", start)
    text = f"operands: {{t: {{dims: [2]}}}}{product}{_BOTH}  - softmax: {{dim: 1}}\n"
    with pytest.raises(SpecError, match="dim 1 is not the last of 3"):
        spec.parse(text, "after_product")


def test_the_last_dim_is_taken() -> None:
    made = chain.derive_all(spec.parse(f"{_PRODUCT}{_BOTH}  - softmax\n", "after_product"))
    assert [segment.layout.columns for segment in made.fused[1].segments] == [(-1,)]
