"""Steps that reduce the first dim of a matrix: the rows of a batch, beside steps that reduce the last."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from conftest import derive

from fusegen.tools.check.compare import Comparison
from fusegen.tools.check.rounding import EXACT
from fusegen.tools.check.verify import make_case

#: By name: a chain of a matrix, and the kinds of its operands in its first segment.
CASES = {
    # How many tokens a router sends to each expert.
    "load": (
        """
        outputs: [router, load]
        chain:
          - softmax: {name: router, dim: 1}
          - mean: {name: load, dim: 0}
        """,
        [],
    ),
    # The features of a batch should vary.
    "variance": (
        """
        outputs: [s, loss]
        chain:
          - std: {name: s, dim: 0}
          - expr: "relu(1 - x)"
          - mean: {name: loss}
        """,
        [],
    ),
    # One number for each feature is one a row, where a row is a feature of all samples.
    "operands": (
        """
        operands: {bias: channel, each: row, scale: full}
        chain:
          - expr: {formula: "softmax(x + bias) * each * scale", dim: 0}
          - layer_norm: {dim: -1}
        """,
        ["channel", "row", "full"],
    ),
    "halves": (
        """
        operands: {residual: full}
        chain:
          - swiglu
          - add: residual
          - log_softmax: {dim: -2}
        """,
        ["full"],
    ),
    "centred": (
        """
        operands: {weight: col}
        outputs: [means, y]
        chain:
          - mean: {name: means, dim: 0, keepdim: true}
          - expr: "input - means"
          - normalize: {dim: 1}
          - mul: {name: y, other: weight}
        """,
        [],
    ),
    "class": (
        """
        operands: {target: {kind: row, dtype: int64}}
        outputs: [loss, best]
        chain:
          - cross_entropy: {name: loss, target: target}
          - expr: "input"
          - argmax: {name: best, dim: 0}
        """,
        ["row"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, tmp_path: Path) -> None:
    text, kinds = CASES[name]
    path = tmp_path / "matrix.yaml"
    path.write_text("dims: 2\norder: 1\n" + textwrap.dedent(text))
    derived = derive(path)
    assert [operand.kind.label for operand in derived.segments[0].operands] == kinds
    case = make_case(derived, (5, 6), training=False)
    comparison = Comparison(derived, case, torch.float32)
    found, truth = comparison.programs(EXACT), comparison.truth()
    for what, got, true in zip(comparison.names, found, truth, strict=True):
        torch.testing.assert_close(got, true, rtol=1e-7, atol=1e-9, msg=f"{what}: {{}}".format)
