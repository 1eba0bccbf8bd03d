"""Graphs that are easy to get wrong: values, gradients and side effects against the same graph in eager.

No package is compiled: torch computes each spec, in float64, so that only the graph can be wrong.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import seen
from shared.model_zoo import ZOO
from torch import Tensor, nn
from torch.nn import functional

from fusegen.models import FusegenBackend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("specs_by_torch"),
]  # together they take 20 seconds

X, Y, W = (torch.linspace(-2, 2, 32, dtype=torch.float64).roll(n).reshape(4, 8) for n in (0, 5, 11))
SQUARE = torch.linspace(-1, 1, 64, dtype=torch.float64).sin().reshape(8, 8)
IMAGE = torch.linspace(-3, 3, 240, dtype=torch.float64).sin().reshape(2, 4, 5, 6)
CASES: dict[str, tuple[Any, tuple[Tensor, ...]]] = {}


def case(*inputs: Tensor) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        CASES[function.__name__] = function, inputs
        return function

    return add


@case(X)
def a_statistic_without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        size = x.abs().mean(-1, keepdim=True)
    return x / (size + 1)


@case(X)
def what_comes_before_a_block_without_gradients(x: Tensor) -> Any:
    a = x * 2 + 1
    with torch.no_grad():
        size = (a * 3).abs()
    return a, size


@case(X, Y, SQUARE)
def what_comes_after_it(x: Tensor, y: Tensor, w: Tensor) -> Any:
    a = x * 2 + 1
    with torch.no_grad():
        product = a @ w
    return (a * y).tanh() * 3, product


@case(X, torch.ones(8, dtype=torch.float64))
def a_small_tensor_of_such_a_block(x: Tensor, w: Tensor) -> Tensor:
    with torch.no_grad():
        scale = w.exp()
    return x * scale + 1


@case(IMAGE, IMAGE.roll(3))
def a_softmax_within_a_formula(x: Tensor, y: Tensor) -> Tensor:
    return (x * 2 + 1).tanh() * functional.softmax(y, dim=1)


class Shortcut(nn.Module):
    """Two batch norms of different tensors, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other = nn.BatchNorm2d(4).double(), nn.BatchNorm2d(4).double()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.relu(self.norm(x * 2) + self.other(y.tanh()))


CASES["two_batch_norms"] = Shortcut(), (IMAGE, IMAGE.roll(3))
CASES["two_batch_norms_in_evaluation"] = Shortcut().eval(), (IMAGE, IMAGE.roll(3))


@case(IMAGE, IMAGE.roll(3))
def a_norm_within_a_formula(x: Tensor, y: Tensor) -> Tensor:
    return (x * 2 + 1).tanh().exp() * functional.layer_norm(y, (5, 6))


@case(X, torch.ones(8, dtype=torch.float64))
def a_small_tensor_that_changes(x: Tensor, w: Tensor) -> Tensor:
    scale = w.exp()
    w.add_(1)
    return x * scale + 1


@case(X, Y)
def an_operator_in_place(x: Tensor, y: Tensor) -> Any:
    a = x * 2
    x %= 2
    y **= 2
    return a + x * 3 + 1, y * a


@case(X, SQUARE)
def a_function_in_place(x: Tensor, w: Tensor) -> Any:
    y = x @ w
    z = y + 1
    torch.relu_(y)
    return z * 3, y


@case(X, Y, SQUARE)
def a_list_in_place(x: Tensor, y: Tensor, w: Tensor) -> Any:
    h = x @ w
    a = h + 1
    torch._foreach_add_([h], [y])
    return a * 3, h


@case(X)
def a_view_of_what_changes(x: Tensor) -> Tensor:
    y = x * 2
    z = y.ravel()
    y.add_(1)
    return z * 3 + 1


@case(X, SQUARE)
def dropout_that_is_its_input(x: Tensor, w: Tensor) -> Any:
    y = x * 2 + 1
    same = functional.dropout(y, 0.5, False)
    y += 1
    return same @ w, y @ w


@case(X, Y)
def a_result_that_is_given(x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        z = torch.empty_like(x)
        torch.add(x, y, out=z)
    return (z * 2).relu() + x


@case(X)
def what_nobody_reads(x: Tensor) -> Tensor:
    unread = (x * 3).exp().mean(-1)
    (x * 3).masked_fill(x > 0, 1.0)
    functional.dropout(x * 3, 0.5)
    del unread
    return functional.silu(x) * 2


@case(IMAGE, IMAGE[:, :, :1, :1])
def a_value_of_rows_that_is_returned(x: Tensor, gate: Tensor) -> Any:
    size = x.mean((2, 3), keepdim=True) * gate
    return x * size.sigmoid(), size


@case(IMAGE[0], IMAGE[0, :, :1, :1])
def a_value_of_rows_and_part_of_them(x: Tensor, gate: Tensor) -> Any:
    size = x.mean(-1, keepdim=True) * gate
    return size, x - size


@case(X.float())
def what_rounding_leaves(x: Tensor) -> Tensor:
    return (x - x.bfloat16().float()) * 1e3


@case(X.float())
def what_rounding_leaves_beside_what_is_rounded(x: Tensor) -> Tensor:
    with torch.no_grad():  # gradients are rounded too
        rounded = x.bfloat16()
        return (rounded.float() * 2 - x * 2) * 1e3 + rounded * 4


@case(IMAGE, torch.linspace(0, 1, 4, dtype=torch.float64))
def weights_of_channels(x: Tensor, weight: Tensor) -> Tensor:
    return functional.prelu(x * 2, weight) + 1


@case(SQUARE.reshape(1, 8, 8), torch.linspace(0, 1, 8, dtype=torch.float64))
def weights_of_channels_as_many_as_columns(x: Tensor, weight: Tensor) -> Tensor:
    return functional.prelu(x * 2, weight) + 1


@case(X, Y)
def choices(x: Tensor, y: Tensor) -> Any:
    a = torch.where(x > y, x * 2, y - 1)
    return a.tanh(), torch.where((x > 0) & (y > 0), a, 0.5)


@case(IMAGE)
def attention_with_a_mask(x: Tensor) -> Tensor:
    mask = torch.ones(5, 6, dtype=torch.bool).tril()
    return torch.softmax((x / 2).masked_fill(~mask, float("-inf")), -1) * 3


@case(IMAGE, IMAGE[:, :, :1, :1])
def a_gate_of_each_channel_of_each_sample(x: Tensor, gate: Tensor) -> Any:
    small = torch.sigmoid(gate * 2) + 1
    return (x * small).tanh(), (x + 1) * small, small


@case(IMAGE, IMAGE[:, :, :1, :1], IMAGE[:1, :, :1])
def small_tensors_of_two(x: Tensor, gate: Tensor, other: Tensor) -> Any:
    return (x * (gate.exp() + other)).tanh() * (1 - gate) * (2 * other)


@case(IMAGE[0, :, :, :1], IMAGE[0, :1, :1])
def an_outer_product(x: Tensor, y: Tensor) -> Any:
    z = x * y
    return z.sin(), z.cos() * (1 + x)


@case(IMAGE)
def a_pooling_beside_what_is_pooled(x: Tensor) -> Any:
    y = functional.hardswish(x * 2)
    return y, functional.adaptive_avg_pool2d(y, 1).sigmoid()


@case(IMAGE, IMAGE[:, :, :1, :1])
def a_long_chain_of_small_tensors(x: Tensor, gate: Tensor) -> Tensor:
    return x * (((((gate + 1) * 2).exp() + 1).log() * 3).tanh() + 1) + 1


@case(X, X[:1])
def small_tensors_that_are_rounded(x: Tensor, scale: Tensor) -> Any:
    once = x * scale.float() * 2
    return once, x * scale.bfloat16().double() + 1, x * (scale.bfloat16().double() + 1) + 1


@case(X, X[:, :1], X[:1])
def masks_and_rows_of_outer_products(x: Tensor, a: Tensor, b: Tensor) -> Any:
    return (a * b).masked_fill(x > 0, -1.0).exp() * 2, (a * b).softmax(-1) * 2


@case(X[:, :1], X[:1])
def a_row_and_what_is_broadcast_to_rows(a: Tensor, b: Tensor) -> Any:
    difference = a - b
    size = difference.mean(-1, keepdim=True)
    return a + size, difference * size


@case(X)
def masks_of_comparisons(x: Tensor) -> Any:
    hidden = (x * 2).masked_fill(x > 1, float("-inf")).softmax(-1)
    return hidden.tanh(), (x * 2).masked_fill(x.abs() < 1, -1e9).clamp_min(-3).clamp_max(3)


@case(X, Y)
def what_no_formula_says(x: Tensor, y: Tensor) -> Any:
    a = (x * 2).tanh() + 0 * y
    weight = torch.linspace(1, 2, 8, dtype=torch.float64)
    loss = functional.binary_cross_entropy_with_logits(
        a * 3 + 1, y.sigmoid(), pos_weight=weight, reduction="none"
    )
    return a, (loss * 2).exp(), (x / 0.0).clamp(-1, 1)


@case(X)
def a_gradient_inside(x: Tensor) -> Any:
    return torch.func.grad(lambda t: (t.tanh() * 2 + 1).exp().sum())(x) * 2 + 1


@case(X)
class AveragesReadBeforeTheNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        old = self.norm.running_mean * 2
        return self.norm(x * 2) * old + 1


@case(X)
class ABufferThatChanges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((8,), 4.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        root = self.scale.sqrt()
        self.scale.mul_(4.0)
        return (x / root + 1).relu()


@case(X)
class AFrozenPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.head = (nn.LayerNorm(8, dtype=torch.float64) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = self.frozen(x).relu()
        return self.head(z).tanh()


@pytest.mark.parametrize("name", CASES)
def test_a_fused_graph_is_the_graph(name: str) -> None:
    made, inputs = CASES[name]
    model = made() if isinstance(made, type) else made
    other = copy.deepcopy(model)
    wanted = seen(model, inputs, model)
    found = seen(other, inputs, torch.compile(other, backend=FusegenBackend(everything=True)))
    assert len(found) == len(wanted)
    for got, truth in zip(found, wanted, strict=True):
        if isinstance(truth, tuple):
            assert got[1] == truth[1], "whether it has a gradient"
            got, truth = got[0], truth[0]
        assert (got is None) == (truth is None)
        if truth is not None:
            torch.testing.assert_close(got, truth, equal_nan=True)


@pytest.mark.parametrize("name", ZOO)
def test_a_fused_model_is_the_model(name: str) -> None:
    """In evaluation, where dropout drops nothing, and batch norm moves no averages."""
    torch.manual_seed(0)
    made, shapes = ZOO[name]
    model = made().double().eval()
    inputs = tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)
    other = copy.deepcopy(model)
    wanted = seen(model, inputs, model)
    used = FusegenBackend(everything=True)
    found = seen(other, inputs, torch.compile(other, backend=used))
    for got, truth in zip(found, wanted, strict=True):
        got, truth = (t[0] if isinstance(t, tuple) else t for t in (got, truth))
        torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-11)
    assert used.report.fused
    assert not [region.reason for region in used.report.regions if region.reason]


def test_sizes_that_change() -> None:
    """A graph with symbols for sizes, among them those that a rotation and a view take."""
    model = ZOO["decoder"][0]().double()
    used = FusegenBackend(everything=True)
    compiled = torch.compile(model, backend=used, dynamic=True)
    for batch, length in ((2, 8), (3, 5), (5, 11)):
        x = torch.randn(batch, length, 32, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), model(x))
    assert used.report.graphs == 1 and used.report.fused


def test_the_report_says_what_packages_compute() -> None:
    """What a package computes itself is not left, and what computes nothing is not said to be alone."""

    def gated(x: Tensor, gate: Tensor, index: Tensor) -> Any:
        small = torch.sigmoid(gate)
        index += 1
        return x.double() @ (x * small), functional.dropout(x, 0.0), x.reshape(-1)

    used = FusegenBackend(everything=True)
    torch.compile(gated, backend=used)(SQUARE, SQUARE[:1, :1], torch.arange(3))
    (region,) = used.report.fused
    assert region.ops == ("sigmoid", "mul")
    assert used.report.left == {
        ("iadd", "its value is no floating-point tensor"): 1,
        ("double", "it computes nothing"): 1,
        ("matmul", "a product or a convolution, which torch computes"): 1,
        ("dropout", "it computes nothing"): 1,
        ("reshape", "a view or a selection, which computes nothing"): 1,
    }


def test_a_comparison_in_a_kernel_is_not_computed_again() -> None:
    def chosen(x: Tensor) -> Tensor:
        return torch.where(x > 0, x * 2, x.exp())

    used, graphs = FusegenBackend(everything=True), []

    def look(module: Any, inputs: Any) -> Any:
        forward = used(module, inputs)
        graphs.append(forward.__self__.graph)  # type: ignore[attr-defined]  # a bound method
        return forward

    torch.compile(chosen, backend=look)(X)
    called = [n for n in graphs[0].nodes if n.op in ("call_function", "call_method")]
    assert len(called) == 1
    assert not used.report.left


def test_one_op_that_no_spec_says_is_left_alone() -> None:
    def tricked(x: Tensor, y: Tensor) -> Tensor:
        return (x * 2).tanh() + 0 * y

    used = FusegenBackend(everything=True)
    torch.compile(tricked, backend=used)(X, Y)
    assert [region.ops for region in used.report.fused] == [("mul", "tanh", "add")]
    ((name, reason),) = used.report.left
    assert name == "mul"
    assert "does not depend on x" in reason


def test_numbers_of_modules_are_known_though_sizes_change() -> None:
    """With dynamic=True torch makes a symbol of each number; one that changes is compiled anew."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.factor = nn.BatchNorm2d(4, dtype=torch.float64), 0.3

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x).relu() + (x * self.factor).tanh()

    model, used = Scaled(), FusegenBackend(everything=True)
    fused = copy.deepcopy(model)
    compiled = torch.compile(fused, backend=used, dynamic=True)
    for eps, factor in ((1e-5, 0.3), (1e-2, 0.3), (1e-2, 0.7)):
        for each in (model, fused):
            each.norm.eps, each.factor = eps, factor
        torch.testing.assert_close(compiled(IMAGE), model(IMAGE))
    assert used.report.fused[0].ops[:2] == ("batch_norm", "relu")


def test_inputs_that_share_memory() -> None:
    def changed(a: Tensor, b: Tensor) -> Tensor:
        twice = b * 2
        a.add_(1)
        return twice + 1

    compiled = torch.compile(changed, backend=FusegenBackend(everything=True))
    one, other = X.clone(), X.clone()
    torch.testing.assert_close(compiled(one, one.view(8, 4)), changed(other, other.view(8, 4)))


def test_most_of_them_are_fused() -> None:
    """Else the cases above would hold for nothing."""
    fused = 0
    for made, inputs in CASES.values():
        made_backend = FusegenBackend(everything=True)
        model = made() if isinstance(made, type) else made
        torch.compile(model, backend=made_backend)(*(t.clone() for t in inputs))
        fused += bool(made_backend.report.fused)
    assert fused > len(CASES) / 2


def test_options_are_checked() -> None:
    for options in ({"rest": "nothing"}, {"order": 7}):
        with pytest.raises(Exception, match=r"rest is|order is"):
            FusegenBackend(**options)
