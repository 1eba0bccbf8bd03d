"""Functions and modules whose graphs are easy to get wrong, each with inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CASES", "IMAGE", "SQUARE", "X", "Y"]

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
