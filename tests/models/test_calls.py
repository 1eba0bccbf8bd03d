"""A node of a captured graph in the words of a spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.captured import captured
from torch import Tensor
from torch.nn import functional

from fusegen.models.arguments import UnfitError
from fusegen.models.calls import Call, call_of
from fusegen.ops import registry

X, Y = torch.rand(3, 4) + 0.5, torch.rand(3, 4) + 0.5


def call(function: Callable[..., Any], *inputs: Tensor) -> Call:
    """Return what the last node of a function's graph computes."""
    module = captured(function, *(inputs or (X,)))
    return call_of([n for n in module.graph.nodes if n.op.startswith("call")][-1])


#: Ops of one tensor under their name in torch, called as a function.
UNARY = sorted(
    name
    for name, op in registry().items()
    if op.torch
    and not (op.operands or op.source or op.required or op.submodule or op.dims)
    and name != "clamp"  # without bounds it is an error
)


@pytest.mark.parametrize("name", UNARY)
def test_a_function_of_torch_is_its_op(name: str) -> None:
    function: Any = torch
    for part in registry()[name].torch.split("."):
        function = getattr(function, part)
    assert call(lambda x: function(x)).name == name


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("add", lambda x: x + 2),
        ("add", lambda x: 2 + x),
        ("sub", lambda x: 1 - x),
        ("div", lambda x: 1 / x),
        ("pow", lambda x: x**3),
        ("pow", lambda x: 2**x),
        ("neg", lambda x: -x),
        ("abs", lambda x: abs(x)),
        ("threshold", lambda x: functional.threshold(x, 0.1, 20.0)),
        ("threshold", torch.nn.Threshold(0.1, 20.0)),
        ("celu", lambda x: torch.celu(x, 1.3)),
        ("selu", lambda x: torch.selu(x)),
        ("relu", lambda x: x.relu()),
        ("relu", lambda x: torch.relu(x)),
        ("sigmoid", lambda x: functional.sigmoid(x)),
        ("tanh", lambda x: x.tanh()),
        ("clamp", lambda x: x.clamp(0, 1)),
        ("clamp", lambda x: torch.clip(x, max=1)),
        ("softmax", lambda x: x.softmax(-1)),
        ("log_softmax", lambda x: torch.log_softmax(x, dim=-1)),
        ("mean", lambda x: x.mean(-1, keepdim=True)),
        ("sum", lambda x: torch.sum(x, dim=-1, keepdim=True)),
        ("var", lambda x: x.var(-1, keepdim=True)),
        ("var", lambda x: x.var(dim=-1, unbiased=False, keepdim=True)),
        ("std", lambda x: x.std(-1, correction=0, keepdim=True)),
        ("norm", lambda x: x.norm(dim=-1, keepdim=True)),
        ("norm", lambda x: torch.linalg.vector_norm(x, 2, -1, True)),
        ("normalize", lambda x: functional.normalize(x, dim=-1)),
        ("layer_norm", lambda x: functional.layer_norm(x, (4,))),
        ("rms_norm", lambda x: functional.rms_norm(x, (4,), eps=1e-6)),
        ("maximum", lambda x: torch.max(x, x + 1)),
        ("minimum", lambda x: x.min(other=x + 1)),
        ("cast", lambda x: x.to(torch.bfloat16)),
        ("cast", lambda x: x.double()),
        ("cast", lambda x: functional.dropout(x, 0.5, training=False)),
    ],
)
def test_what_torch_spells_in_another_way(name: str, function: Callable[..., Any]) -> None:
    assert call(function).name == name


def test_operands_and_attributes_have_the_names_of_the_op() -> None:
    found = call(lambda x, y: torch.add(x, y, alpha=3), X, Y)
    assert found.attributes == {"alpha": 3}
    assert set(found.operands) == {"other"}
    found = call(lambda x, y: torch.lerp(x, y, 0.25), X, Y)
    assert found.operands["weight"] == 0.25
    assert call(lambda x: functional.gelu(x, approximate="tanh")).attributes == {
        "approximate": "tanh"
    }
    assert call(lambda x: x.var(-1, unbiased=False)).attributes == {"correction": 0}
    assert call(lambda x: functional.softplus(x, 2)).attributes == {"beta": 2}


def test_dims_are_counted_from_the_end() -> None:
    assert call(lambda x: x.mean(1)).dims == (-1,)
    assert not call(lambda x: x.mean(1)).keepdim
    assert call(lambda x: x.amax((1, 2), keepdim=True), torch.rand(2, 3, 4)).dims == (-2, -1)


def test_a_pooling_to_one_value_is_a_mean() -> None:
    image = torch.rand(2, 3, 4, 5)
    found = call(lambda x: functional.adaptive_avg_pool2d(x, 1), image)
    assert (found.name, found.dims, found.keepdim) == ("mean", (-2, -1), True)
    assert call(lambda x: functional.adaptive_avg_pool1d(x, (1,)), image[0]).dims == (-1,)
    cube = call(lambda x: functional.adaptive_avg_pool3d(x, output_size=1), image)
    assert cube.dims == (-3, -2, -1)
    with pytest.raises(UnfitError, match="to several values"):
        call(lambda x: functional.adaptive_avg_pool2d(x, (1, 2)), image)


@pytest.mark.parametrize(
    ("reason", "function"),
    [
        ("no op of fusegen", lambda x: torch.cumsum(x, 0)),
        ("its value is of bool", lambda x: x > 0),
        ("its value is of complex64", lambda x: torch.fft.rfft(x)),
        ("an input is of int64", lambda x: x * torch.arange(4)),
        ("a reduction over all dims", lambda x: x.var()),
        ("a product or a convolution", lambda x: functional.linear(x, x)),
        ("windows or of whole channels", lambda x: functional.max_pool1d(x, 2)),
        ("windows or of whole channels", lambda x: functional.dropout1d(x, 0.5)),
        ("a reduction over all dims", lambda x: x.sum(None, keepdim=True)),
        ("not finite", lambda x: x.clamp(min=float("-inf"))),
    ],
)
def test_what_is_no_op_says_why(reason: str, function: Callable[..., Any]) -> None:
    with pytest.raises(UnfitError, match=reason):
        call(function)
