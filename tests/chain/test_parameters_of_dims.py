"""Parameters that list their dims: shapes with these alone, and with the dims that earlier steps left."""

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

#: The steps of a chain, and the shapes of a parameter along dims 0 and 2 of x.
STEPS = {
    "whole": ("tanh", ("[4, 6]", "[4, 1, 6, 1]")),
    "dropped": ("logsumexp: {dim: 1}", ("[4, 6]", "[4, 6, 1]", "[4, 1, 6, 1]")),
    "later": ("mean: {dim: 1}}, {softmax: {dim: 1}", ("[4, 6]", "[4, 6, 1]", "[6, 1]")),
}
CASES = [(name, shape) for name, (_, shapes) in STEPS.items() for shape in shapes]


def _name(steps: str, shape: str) -> str:
    return "_".join([steps, *(c for c in shape if c.isdigit())])


def _text(steps: str, shape: str) -> str:
    return (
        f"dims: 4\noperands: {{w: {{dims: [0, 2], init: randn, shape: {shape}}}}}\n"
        f"chain: [dropout, {{{STEPS[steps][0]}}}, {{mul: w}}]\n".replace("{tanh}", "tanh")
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    texts = {_name(*case): _text(*case) for case in CASES}
    found: dict[str, ModuleType] = packages_of_texts(tmp_path_factory, "of_dims", texts)
    return found


def _in_torch(steps: str, x: Tensor, w: Tensor) -> Tensor:
    w = w.reshape(-1, 1, 6, 1)
    if steps == "whole":
        return x.tanh() * w
    return (x.logsumexp(1) if steps == "dropped" else x.mean(1).softmax(1)) * w.squeeze(1)


@pytest.mark.parametrize(("steps", "shape"), CASES)
def test_values_and_gradients_are_those_of_torch(
    packages: dict[str, ModuleType], steps: str, shape: str
) -> None:
    torch.manual_seed(1)
    model: Any = packages[_name(steps, shape)].Module().double().eval()
    assert str(list(model.w.shape)) == shape
    x = torch.randn(4, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    found, wanted = model(x), _in_torch(steps, x, model.w)
    torch.testing.assert_close(found, wanted)
    along = torch.randn_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found, [x, model.w], along),
        torch.autograd.grad(wanted, [x, model.w], along),
    )
    model.dropout.register_forward_hook(lambda *_: None)  # step by step
    torch.testing.assert_close(model(x), wanted)


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ("later", "[4, 1, 6, 1]"),
        ("dropped", "[4, 1, 6]"),
        ("whole", "[4, 6, 1]"),
        ("whole", "[6, 4, 1]"),
    ],
)
def test_a_shape_with_other_dims_is_refused_where_it_is_declared(steps: str, shape: str) -> None:
    with pytest.raises(SpecError, match="give one size for each of its dims alone") as refused:
        derive_all(parse(_text(steps, shape), "refused"))
    assert refused.value.line == 2
