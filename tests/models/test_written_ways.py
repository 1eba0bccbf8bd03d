"""Arithmetic in the ways in which models write it: one region of each, with eager's values and gradients.

No package is compiled: torch computes each spec, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor
from torch.nn import functional

from fusegen.models import FusegenBackend, Report

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("specs_by_torch")]

X, Y = (
    torch.linspace(-3, 3, 144, dtype=torch.float64).mul(n).sin().reshape(3, 6, 8) for n in (5, 7)
)
IMAGE = torch.linspace(-3, 3, 240, dtype=torch.float64).mul(9).sin().reshape(2, 4, 5, 6)
GATE = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)
SEEN = (torch.arange(18) % 5 > 1).reshape(3, 6)
COUNTS = (torch.arange(18) % 4).reshape(3, 6)
#: Each with its inputs, and words that the spec has.
WAYS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], tuple[str, ...]]] = {}


def way(*inputs: Tensor, words: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        WAYS[function.__name__] = function, inputs, words
        return function

    return add


@way(X)
def a_mean_that_gets_its_dim_back(x: Tensor) -> Tensor:
    return x * x.sigmoid().mean(-1).unsqueeze(-1) + 1


@way(X)
def a_norm_by_an_index(x: Tensor) -> Tensor:
    return x / (x.pow(2).sum(1)[:, None] + 1e-6).sqrt()


@way(IMAGE)
def a_scale_of_each_image_by_a_view(x: Tensor) -> Tensor:
    size = torch.rsqrt(x.pow(2).sum([2, 3]) + 1e-8)
    return x * size.view(x.shape[0], x.shape[1], 1, 1)


@way(X)
def what_is_computed_of_reduced_values(x: Tensor) -> Any:
    size = torch.logsumexp(x * 2, -1)
    return (size * size).tanh().sum(), size


@way(X, Y)
def a_loss_of_distances(x: Tensor, y: Tensor) -> Tensor:
    near, far = (x - y).pow(2).sum(-1), (x + 1).pow(2).sum(-1)
    return functional.relu(near - far + 1.0).mean()


@way(IMAGE, GATE, words=("t1: row",))
def a_gate_that_is_expanded(x: Tensor, gate: Tensor) -> Tensor:
    return (x * 2).tanh() * gate.view(2, 4, 1, 1).expand_as(x)


@way(X, SEEN, words=("dtype: bool", "where(t1, 1, 0)"))
def a_mask_as_numbers(x: Tensor, seen: Tensor) -> Tensor:
    return (x * 2).tanh() * seen.unsqueeze(-1).to(x.dtype)


@way(X, SEEN, words=("dtype: bool", "where(t1, 1, 0)"))
def a_mask_as_a_factor(x: Tensor, seen: Tensor) -> Tensor:
    return ((x * 2).tanh() * seen[..., None]).mean(-1)


@way(X, SEEN, words=("where(t1, 1, 0)",))
def a_mask_of_float32(x: Tensor, seen: Tensor) -> Tensor:
    return (x * 2).tanh() * seen[..., None].float()


@way(X, SEEN[:1].reshape(6, 1), words=("kind: channel, dtype: bool",))
def a_mask_of_channels(x: Tensor, seen: Tensor) -> Tensor:
    return (x * 2).mean(1, keepdim=True) + (x * 3).masked_fill(seen, 0.5)


@way(X, COUNTS, words=("t1: row",))
def a_quotient_by_integers(x: Tensor, counts: Tensor) -> Tensor:
    return (x / counts.clamp(min=1)[..., None]).tanh()


@way(X, SEEN[:, :1, None], words=("masked_fill", "-inf"))
def a_choice_of_an_infinite_number(x: Tensor, seen: Tensor) -> Tensor:
    return torch.where(seen, float("-inf"), x * 2).add(1).exp()


@way(X, Y, words=("where",))
def a_choice_that_is_a_method(x: Tensor, y: Tensor) -> Tensor:
    return (x * 2).where(x > y, y - 1).tanh()


@way(X, Y)
def a_choice_by_what_the_region_computes(x: Tensor, y: Tensor) -> Tensor:
    d = x * 2 - y
    return torch.where(d.abs() < 0.5, 0.5 * d**2, d.abs() - 0.125).mean(-1)


@way(X[0])
def a_batch_without_its_mean(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.std(0) + 1e-5) * 2


@way(X[0])
def a_loss_of_the_features_of_a_batch(x: Tensor) -> Tensor:
    return functional.relu(1 - torch.sqrt(x.var(dim=0) + 1e-4)).mean()


@way(X, words=("dim: -3",))
def what_a_mean_over_the_first_dim_is_taken_from(x: Tensor) -> Tensor:
    return (x - (x * 2).mean(0)).tanh()


@way(X, Y, words=("normalize",))
def a_cosine(x: Tensor, y: Tensor) -> Tensor:
    return functional.cosine_similarity(x, y * 2, dim=-1) / 0.1


@way(X[0], Y[0].softmax(-1), words=("kl_div",))
def a_divergence_of_the_mean_of_a_batch(x: Tensor, y: Tensor) -> Tensor:
    return functional.kl_div(functional.log_softmax(x / 4, -1), y, reduction="batchmean")


@way(X, Y)
def two_softmaxes_after_a_sum(x: Tensor, y: Tensor) -> Any:
    p, q = x.softmax(-1), y.softmax(-1)
    entropy = (p * p.log()).sum(-1)
    mixed = 0.5 * (p + q)
    return entropy, (q * (q.log() - mixed.log())).sum(-1)


@way(IMAGE, GATE, words=("instance_norm", "mean(x)"))
def a_mean_of_each_image_after_its_norm(x: Tensor, y: Tensor) -> Any:
    h = functional.silu(functional.instance_norm(x, weight=y[0, :4], bias=y[1, :4]))
    return h, functional.adaptive_avg_pool2d(h, 1).flatten(1)


@way(X, Y, words=("binary_cross_entropy_with_logits",))
def a_loss_of_a_target_that_is_broadcast(x: Tensor, y: Tensor) -> Tensor:
    """torch refuses a target of another shape than the logits'."""
    target = y[..., :1].sigmoid().detach().expand_as(x)
    loss = functional.binary_cross_entropy_with_logits(x * 2, target, reduction="none")
    return loss * (1 - torch.exp(-loss)).square()


@way(X, words=("dims: 3", "instance_norm"))
def a_softmax_of_a_normed_signal(x: Tensor) -> Tensor:
    return functional.instance_norm(x * 2).softmax(-1).amax(-1)


@way(IMAGE, words=("t1: row",))
def a_style_of_each_channel(x: Tensor) -> Tensor:
    shift = x[:, :, :1, :1].cos()  # of a part of what the region reads
    return functional.instance_norm(x * 2).tanh() + shift


def held(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Report:
    """Hold a function against eager, its random numbers among it; return what was fused."""
    used = FusegenBackend(everything=True)
    torch.manual_seed(0)
    wanted = seen(function, inputs, function)
    torch.manual_seed(0)
    hold_seen(seen(function, inputs, torch.compile(function, backend=used)), wanted)
    return used.report


@pytest.mark.parametrize("name", WAYS)
def test_it_is_one_region(name: str) -> None:
    function, inputs, words = WAYS[name]
    report = held(function, inputs)
    (region,) = report.regions
    assert not region.reason
    for word in words:
        assert word in region.spec


def test_a_comparison_that_others_read_too() -> None:
    def chosen(x: Tensor, y: Tensor) -> Any:
        d = x * 2 - y
        larger = d > 0.3
        return torch.where(larger, d, y).tanh(), torch.where(larger, y * 2, 1.0).exp(), larger * 1

    assert "where" in held(chosen, (X, Y)).fused[0].ops


def test_a_comparison_of_what_is_changed_before_it() -> None:
    def chosen(x: Tensor) -> Tensor:
        d = x * 2
        e = d + 1
        d.mul_(-3)
        return torch.where(d > 0, e * 2, d).tanh()

    held(chosen, (X,))


@pytest.mark.parametrize("form", ["mean(-1)", "(2, 3)"])
def test_dropout_of_a_reduced_value(form: str) -> None:
    """The mask is torch's own, so that it has the numbers that eager draws."""
    dims = -1 if form == "mean(-1)" else (2, 3)

    def gated(x: Tensor) -> Tensor:
        gate = torch.sigmoid(x.mean(dims, keepdim=True))
        return x * functional.dropout(gate, 0.4, training=True) + 1

    report = held(gated, (X if dims == -1 else IMAGE,))
    assert report.regions[0].ops == ("mean", "sigmoid", "mul", "mul", "add")


def test_alpha_dropout_of_a_reduced_value_does_not_cost_the_region() -> None:
    def gated(x: Tensor) -> Tensor:
        gate = functional.alpha_dropout(x.mean(-1, keepdim=True), 0.4, training=True)
        return (x * gate.detach().abs().clamp(max=0) + x).tanh()

    assert held(gated, (X,)).regions[0].ops[-1] == "tanh"


def test_what_no_spec_says_is_left_out_by_itself() -> None:
    def scaled(x: Tensor, y: Tensor) -> Tensor:
        size = x.mean(-1, keepdim=True) * y  # varies along a part of the rows
        return (x * 2).exp().sum(-1, keepdim=True) + 1, size

    report = held(scaled, (X, Y[:1, :, :1]))
    assert not [region for region in report.regions if region.reason]


def test_a_cosine_of_tensors_that_are_shorter_than_its_eps() -> None:
    """Their norms are 2 in its value, and what they are in its gradient, which no product of others has."""

    def alike(x: Tensor, y: Tensor) -> Tensor:
        return functional.cosine_similarity(x, y, dim=-1, eps=2.0).exp() + 1

    held(alike, (X / 9, Y))


def test_a_choice_of_a_number_beside_what_is_broadcast() -> None:
    """torch makes a tensor of the number, which is to be as fake as what a broadcast is left out of."""

    def chosen(x: Tensor, y: Tensor) -> Tensor:
        return torch.where(y > 0, x[:1].expand_as(x), 0.0).tanh()

    assert "where" in held(chosen, (X, Y)).fused[0].ops


def test_channels_of_a_small_tensor_that_are_no_channels_of_the_activation() -> None:
    def rectified(x: Tensor, row: Tensor, slope: Tensor) -> Tensor:
        return torch.minimum(x, functional.prelu(row, slope)).exp() + 1

    row = torch.linspace(-1, 1, X.shape[-1], dtype=X.dtype)[None]
    assert held(rectified, (X, row, row[0].cos())).fused[0].ops == ("minimum", "exp", "add")
