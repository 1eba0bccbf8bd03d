"""Operands beside a value that lost dims: torch aligns them with it, and their `dims` are x's."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor

from fusegen.base.errors import SpecError
from fusegen.chain.chains import derive_all
from fusegen.spec import parse

SPECS = {
    # In the segment that drops the dim: all sizes are alike, so that no other alignment is an error.
    "of_rows": """
dims: 3
operands: {w: row}
chain:
  - logsumexp: {dim: -1}
  - mul: w
""",
    "of_dims": """
dims: 4
operands: {w: {dims: [0, 2]}}
chain:
  - logsumexp: {dim: 1}
  - mul: w
""",
    # In a later one.
    "of_dims_later": """
dims: 4
operands: {w: {dims: [0, 2]}}
chain:
  - mean: {dim: 1}
  - softmax: {dim: 1}
  - dropout: {p: 0.1}
  - mul: w
  - sum: {dim: 0}
""",
    # Beside dims of a row that are no neighbours.
    "of_dims_apart": """
dims: 4
operands: {w: row}
chain:
  - logsumexp: {dim: [0, 2]}
  - mul: w
""",
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "operands_after_dropped_dims", SPECS)


def _in_torch(name: str, x: Tensor, w: Tensor) -> Tensor:
    if name == "of_rows":
        return x.logsumexp(-1) * w
    if name == "of_dims":
        return x.logsumexp(1) * w
    if name == "of_dims_apart":
        return x.logsumexp((0, 2)) * w
    return (x.mean(1).softmax(1) * w).sum(0)


@pytest.mark.parametrize(
    ("name", "shape", "whole"),
    [
        *[("of_rows", s, None) for s in ((4, 4), (4, 1), (1, 4), (4,), (1,), ())],
        ("of_rows", (4, 1, 1), (4, 1)),
        ("of_rows", (1, 4, 1), (1, 4)),
        *[("of_dims", s, None) for s in ((4, 4, 1), (4, 1, 1), (1, 4, 1), (4, 1))],
        ("of_dims", (4, 4), (4, 4, 1)),  # with its own dims alone
        ("of_dims", (4, 1, 4, 1), (4, 4, 1)),
        *[("of_dims_later", s, None) for s in ((4, 4, 1), (4, 1, 1), (1, 4, 1))],
        ("of_dims_later", (4, 4), (4, 4, 1)),
        *[("of_dims_apart", s, None) for s in ((4, 4), (4, 1), (1, 4), (4,))],
        ("of_dims_apart", (1, 4, 1, 4), (4, 4)),
    ],
)
def test_values_and_gradients_are_those_of_torch(
    packages: dict[str, ModuleType],
    name: str,
    shape: tuple[int, ...],
    whole: tuple[int, ...] | None,
) -> None:
    torch.manual_seed(1)
    model: Any = packages[name].Module().double().eval()
    sizes = (4, 4, 7) if name == "of_rows" else (4, 4, 4, 4)
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (sizes, shape)]
    x, w = inputs
    found = model(x, w)
    wanted = _in_torch(name, x, w.reshape(whole or shape))
    torch.testing.assert_close(found, wanted)
    along = torch.randn_like(wanted)
    for own, other in zip(
        torch.autograd.grad(found, inputs, along),
        torch.autograd.grad(wanted, inputs, along),
        strict=True,
    ):
        torch.testing.assert_close(own, other)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (1, 4, 1)])
def test_step_by_step_is_the_same(packages: dict[str, ModuleType], shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    model: Any = packages["of_dims_later"].Module().double().eval()
    x, w = (torch.randn(s, dtype=torch.float64) for s in ((4, 4, 4, 4), shape))
    found = model(x, w)
    model.dropout.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(model(x, w), found)


@pytest.mark.parametrize("steps", ["", "softmax: {dim: 1}"])
def test_a_dim_that_was_dropped_is_refused(steps: str) -> None:
    chain = ["mean: {dim: 1}", *([steps] if steps else []), "mul: w"]
    lines = "".join(f"  - {step}\n" for step in chain)
    text = f"dims: 4\noperands: {{w: {{dims: [0, 1]}}}}\nchain:\n{lines}"
    with pytest.raises(SpecError, match="'w' varies along a dim that an earlier step has dropped"):
        derive_all(parse(text, "refused"))
