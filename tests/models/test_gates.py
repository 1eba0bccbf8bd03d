"""Gates of one projection and numbers of columns in captured graphs: as people write them, and what stays."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import reduce

import pytest
import torch
from shared.by_torch import hold_fused
from shared.captured import captured, ops_of, texts_of, tidied
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fusegen.models import other_gates
from fusegen.models.calls import Call, call_or_none
from fusegen.models.cost import cost_of
from fusegen.models.regions import find_regions
from fusegen.spec import parse
from fusegen.tools.check.reference import run_chain

X = torch.randn(4, 5, 16, dtype=torch.float64)
IMAGE = torch.randn(2, 6, 5, 5, dtype=torch.float64)


def chunked(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return up * F.silu(gate)


def sliced(x: Tensor) -> Tensor:
    return F.gelu(x[..., 8:], approximate="tanh") * x[..., :8]


def split(x: Tensor) -> Tensor:
    up, gate = torch.split(x, 8, dim=2)
    return torch.sigmoid(gate) * up


def relued(x: Tensor) -> Tensor:
    gate, up = x.tensor_split(2, -1)
    return torch.mul(gate.relu(), up)


def neighbours(x: Tensor) -> Tensor:
    gate, up = x[..., ::2], x[..., 1::2]
    return up * F.silu(gate)


def paired(x: Tensor) -> Tensor:
    up, gate = x.view(4, 5, 8, 2).unbind(-1)
    return F.relu(gate) * up


@pytest.mark.parametrize(
    ("written", "step"),
    [
        (chunked, "swiglu: {name: swiglu_1, gate_first: true}"),
        (sliced, "geglu: {name: geglu_1, approximate: 'tanh'}"),
        (split, "glu: {name: glu_1}"),
        (relued, "reglu: {name: reglu_1, gate_first: true}"),
        (F.glu, "glu: {name: glu_1}"),
        (neighbours, "swiglu: {name: swiglu_1, gate_first: true, alternating: true}"),
        (paired, "reglu: {name: reglu_1, alternating: true}"),
    ],
)
def test_every_way_to_write_it_is_one_step(written: Callable[[Tensor], Tensor], step: str) -> None:
    def gated(x: Tensor) -> Tensor:
        return written(x) * 2

    module = captured(gated, X)
    (text,) = texts_of(module)
    assert f"  - {step}\n" in text
    module.recompile()  # what is not fused after all runs as it was
    assert torch.equal(module(X)[0], gated(X))


@pytest.mark.parametrize(
    "other",
    [
        lambda x: F.silu(x[..., :8]) * x[..., :8],
        lambda x: F.silu(x[..., :8]) * x[..., 4:12],
        lambda x: F.silu(x[..., ::2]) * x[..., 8:],
        lambda x: F.silu(x[..., ::2]) * x[..., 2::2].repeat(1, 1, 8)[..., :8],
        lambda x: F.silu(x[..., :8]) + x[..., 8:],
        lambda x: F.silu(gate := x[..., :8]) * x[..., 8:] + gate,
        lambda x: F.silu(x[..., :8]) * (2 * x)[..., 8:],
        lambda x: F.glu(x[:, 0], 0),
    ],
)
def test_what_only_looks_like_one_stays(other: Callable[[Tensor], Tensor]) -> None:
    found = {op for region in ops_of(captured(lambda x: other(x) * 2, X)) for op in region}
    assert not found & {"glu", "swiglu", "geglu", "reglu"}


def clamped(x: Tensor) -> Tensor:
    """As GPT-OSS has it."""
    gate, up = x[..., ::2], x[..., 1::2]
    gate, up = gate.clamp(min=None, max=7.0), up.clamp(min=-7.0, max=7.0)
    return (up + 1) * (gate * torch.sigmoid(gate * 1.702))


def test_a_clamped_gate_is_a_formula_of_its_halves() -> None:
    module = captured(lambda x: clamped(x) * 2, X)
    (text,) = texts_of(module)
    assert "parts: [first, second]" in text and "alternating: true" in text
    assert "(clamp(second, min=-7.0, max=7.0) + 1.0) * (clamp(first, max=7.0)" in text
    module.recompile()
    assert torch.equal(module(X)[0], clamped(X) * 2)


def highway(x: Tensor) -> Tensor:
    gate, new, old = x[..., :15].chunk(3, -1)
    gate = torch.sigmoid(gate)
    return gate * torch.tanh(new) + (1 - gate) * old


def of_four(x: Tensor) -> Tensor:
    q, k, v, g = torch.split(x, 4, dim=-1)
    return q * k.sigmoid() * v * F.silu(g)


@pytest.mark.parametrize(("gate", "parts"), [(highway, 3), (of_four, 4)])
def test_a_gate_of_several_parts_is_a_formula_of_them(
    gate: Callable[[Tensor], Tensor], parts: int
) -> None:
    module = captured(lambda x: gate(x) * 2, X)
    (text,) = texts_of(module)
    assert f"parts: [{', '.join(('first', 'second', 'part3', 'part4')[:parts])}]" in text
    parsed = parse(text, "gated")
    whole = X[..., :15] if parts == 3 else X
    torch.testing.assert_close(run_chain(parsed, whole, {}, {}), gate(X) * 2)
    module.recompile()
    assert torch.equal(module(X)[0], gate(X) * 2)


def read_elsewhere(x: Tensor) -> Tensor:
    q, k, v, g = torch.split(x, 4, dim=-1)
    return q * k * v * g + q.sum()


@pytest.mark.parametrize(
    "other",
    [
        read_elsewhere,
        lambda x: reduce(torch.mul, x.chunk(4, -1)[1:]),  # one part is not read
        lambda x: torch.add(*x.chunk(2, -1)),  # no product of two
        lambda x: reduce(torch.mul, x.reshape(5, 4, 16).chunk(4, 1)),  # of another dim
    ],
)
def test_other_parts_are_read_as_they_are(other: Callable[[Tensor], Tensor]) -> None:
    assert all("parts:" not in text for text in texts_of(captured(lambda x: other(x) * 2, X)))


def test_each_value_of_a_long_product_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are 2^24 ways from the last value to the first."""

    def squared(x: Tensor) -> Tensor:
        for _ in range(24):
            x = x * torch.sigmoid(x)
        return x

    read = []

    def noted(node: fx.Node) -> Call | None:
        read.append(node)
        assert len(read) < 2000, "it does not end"
        return call_or_none(node)

    monkeypatch.setattr(other_gates, "call_or_none", noted)
    assert ops_of(captured(squared, X))


def test_a_product_may_be_of_any_length() -> None:
    def long(x: Tensor) -> Tensor:
        for _ in range(250):
            x = torch.tanh(x) * 1.5
        return x

    assert ops_of(captured(long, X))


#: Functions of one half, as people write them.
OF_A_HALF: list[Callable[[Tensor], Tensor]] = [
    *(torch.sigmoid, F.silu, F.gelu, torch.tanh, F.hardswish, lambda t: t.clamp(max=1.5)),
    *(lambda t: t + 1, lambda t: 0.5 * t, lambda t: t * torch.sigmoid(1.702 * t), lambda t: t),
    *(lambda t: t / (1 + t.abs()), lambda t: -t, lambda t: F.leaky_relu(t, 0.2), lambda t: t**2),
]


@pytest.mark.parametrize("seed", range(6))
def test_random_gates(seed: int) -> None:
    """Products of functions of both halves, in every way to take these."""
    rng = random.Random(seed)
    take: Callable[[Tensor], tuple[Tensor, ...]] = rng.choice(
        [
            lambda x: x.chunk(2, -1),
            lambda x: (x[..., :8], x[..., 8:]),
            lambda x: (x[..., ::2], x[..., 1::2]),
            lambda x: x.reshape(4, 5, 8, 2).unbind(-1),
            lambda x: torch.split(x, 8, dim=-1)[::-1],
        ]
    )
    inner, outer = rng.sample(OF_A_HALF, 2), rng.sample(OF_A_HALF, 2)
    swapped = rng.random() < 0.5

    def gated(x: Tensor) -> Tensor:
        first, second = take(x)
        first, second = outer[0](inner[0](first)), outer[1](inner[1](second))
        return (second * first if swapped else first * second) + 0.25

    module = captured(gated, X)
    (text,) = texts_of(module)
    parsed = parse(text, "gated")
    assert any(step.split for step in parsed.steps), text
    torch.testing.assert_close(run_chain(parsed, X, {}, {}), gated(X))
    module.recompile()
    torch.testing.assert_close(module(X)[0], gated(X))


class Mlp(nn.Module):
    """As Phi and GLM have it, with a norm after the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 24, bias=False), nn.Linear(12, 16)
        self.norm = nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, -1)
        return x + self.down(self.norm(up * F.silu(gate)))


class Neighbours(nn.Module):
    """A gate whose value and gate alternate, with a bias, and a norm after it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(16, 24), nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(neighbours(self.up(x)))


class Clamped(nn.Module):
    """An expert of GPT-OSS, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 24), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(clamped(3 * self.up(x)))


class Highway(nn.Module):
    """A gate between what is new and what was there, all of one projection, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(15, 15), nn.LayerNorm(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(highway(self.up(x)))


class Channels(nn.Module):
    """A gate of halves of the channels, as torch has it, and a residual of the halves' shape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.conv(x), dim=1) + x


class TwoGates(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return chunked(x) + split(2 * x).tanh()


class Normed(nn.Module):
    """A gate whose norm is over channels, which are not the halved dim."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(chunked(x).permute(0, 2, 1), (5,))


class Classes(nn.Module):
    """Probabilities and the likeliest class of each row, of a head with a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 7)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.head(x) / 0.7
        return torch.argmax(logits, dim=-1), logits.softmax(-1), logits.argmin(2, keepdim=True)


MODELS: dict[str, tuple[type[nn.Module], Tensor, set[str]]] = {
    "mlp": (Mlp, X, {"swiglu", "layer_norm"}),
    "neighbours": (Neighbours, X, {"swiglu", "layer_norm"}),
    "clamped": (Clamped, X, {"gate"}),
    "of three": (Highway, X[..., :15], {"gate", "layer_norm"}),
    "channels": (Channels, IMAGE, {"glu", "add"}),
    "two gates": (TwoGates, X, {"swiglu", "glu", "tanh", "add"}),
    "normed": (Normed, X, {"swiglu", "layer_norm"}),
    "classes": (Classes, X, {"div", "argmax", "softmax", "argmin"}),
}


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize("name", MODELS)
def test_a_fused_model_is_the_model(name: str) -> None:
    hold_fused(*MODELS[name])


def test_a_gate_counts_as_the_two_ops_that_it_was() -> None:
    """Between which torch writes and reads a tensor; so one alone is worth it where it is large."""

    module = captured(lambda x: chunked(x), X)
    ((region,), _) = find_regions(module.graph, tidied(module))
    cost = cost_of(region)
    size = X.numel() * X.element_size()
    assert (cost.launches, cost.bytes_before, cost.bytes_after) == (2, 2.5 * size, 1.5 * size)
