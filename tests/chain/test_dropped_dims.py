"""Steps that go on by name after a value whose dims were dropped: values and gradients are torch's."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch
from conftest import derive

from fusegen.base.errors import SpecError
from fusegen.chain import Chain
from fusegen.tools.check.compare import Comparison
from fusegen.tools.check.rounding import EXACT
from fusegen.tools.check.verify import make_case

#: By name: a spec, and the shape of x.
CASES = {
    # Two losses of a row are combined after the chain went back to x.
    "z_loss": (
        """
        operands: {target: {kind: row, dtype: int64}}
        outputs: [loss, both]
        chain:
          - cross_entropy: {name: loss, target: target, reduction: none}
          - expr: "input"
          - logsumexp: {name: z, dim: 1}
          - expr: {name: both, formula: "loss + 0.001 * z**2"}
        """,
        (5, 7),
    ),
    # The channels are the second dim again.
    "mean_and_norm": (
        """
        dims: 4
        operands: {scale: channel}
        outputs: [z, y]
        chain:
          - logsumexp: {name: z, dim: 1}
          - expr: "input * scale"
          - instance_norm: {features: 3}
          - gelu: {name: y}
        """,
        (2, 3, 4, 5),
    ),
    # The steps after it reduce another dim, counted among all four.
    "of_two_rows": (
        """
        dims: 4
        outputs: [z, y]
        chain:
          - logsumexp: {name: z, dim: 1}
          - expr: "input"
          - softmax: {name: y, dim: 3}
        """,
        (2, 3, 4, 5),
    ),
    # What it goes on from is a value of an earlier segment.
    "of_an_earlier_segment": (
        """
        dims: 3
        outputs: [p, s, y]
        chain:
          - softmax: {name: p, dim: 2}
          - sum: {name: s, dim: 1}
          - expr: "input * p"
          - layer_norm: {dim: 2}
          - mean: {name: y, dim: 1}
        """,
        (3, 4, 5),
    ),
    # A single number has no dims that could differ, here or in a later segment.
    "over_all": (
        """
        outputs: [total, y]
        chain:
          - expr: "x * x"
          - sum: {name: total}
          - expr: "input / total"
          - softmax: {name: y}
        """,
        (3, 5),
    ),
    "beside_one": (
        """
        dims: 3
        operands: {target: {kind: row, dtype: int64}}
        outputs: [loss, y]
        chain:
          - cross_entropy: {name: loss, target: target}
          - expr: "input"
          - mean: {dim: 2}
          - softmax: {dim: 1}
          - mul: {name: y, other: loss}
        """,
        (3, 4, 5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, tmp_path: Path) -> None:
    text, shape = CASES[name]
    derived = derive_text(text, tmp_path)
    case = make_case(derived, shape, training=False)
    comparison = Comparison(derived, case, torch.float32)
    found, truth = comparison.programs(EXACT), comparison.truth()
    for what, got, true in zip(comparison.names, found, truth, strict=True):
        torch.testing.assert_close(got, true, rtol=1e-7, atol=1e-9, msg=f"{what}: {{}}".format)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        # [5] and [5, 7] would be broadcast otherwise than a user means, or not at all.
        (
            ["sum: {dim: 1, name: s}", 'expr: "input + s"'],
            "expr: input has 2 dims, and s has 1: reduce with keepdim: true",
        ),
        (
            ["sum: {dim: 1}", "add: input"],
            "add: input has 2 dims, and what reaches this step has 1: reduce with keepdim: true",
        ),
    ],
)
def test_values_of_other_dims_are_not_combined(
    steps: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=message):
        derive_text("chain:\n" + "".join(f"  - {step}\n" for step in steps), tmp_path)


def test_a_norm_of_one_value_is_refused(tmp_path: Path) -> None:
    """Rows that are reduced to one value each have no variance, and torch refuses them too."""
    steps = "- amin: {dim: [2, 3], keepdim: true}\n- instance_norm: {features: 6}"
    with pytest.raises(SpecError, match="it normalises several values, and an earlier step"):
        derive_text(f"dims: 4\nchain:\n{steps}\n", tmp_path)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        torch.nn.InstanceNorm2d(6)(torch.rand(5, 6, 1, 3).amin((2, 3), keepdim=True))


def test_a_value_of_an_earlier_segment_has_the_dims_of_what_reaches_the_step(
    tmp_path: Path,
) -> None:
    text = """
        dims: 4
        outputs: [s, p, y]
        chain:
          - sum: {name: s, dim: 1}
          - expr: "input"
          - softmax: {name: p, dim: 3}
          - expr: {name: y, formula: "tanh(s)"}
        """
    with pytest.raises(SpecError, match="y: an earlier segment computes s, which has other"):
        derive_text(text, tmp_path)


def derive_text(text: str, folder: Path) -> Chain:
    path = folder / "dropped.yaml"
    path.write_text("order: 1\n" + textwrap.dedent(text))
    return derive(path)
