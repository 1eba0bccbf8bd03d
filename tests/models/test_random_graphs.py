"""Random graphs of ops, reductions, views and broadcasts, each spec by torch, against the same in eager."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, replayed, seen
from torch import Tensor
from torch.nn import functional

from fusegen.models import FusegenBackend

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("specs_by_torch")]

#: The shapes of one graph's inputs; the first is that of the first input.
SHAPES = [
    [(2, 4, 5, 6), (2, 4, 1, 1), (4, 1, 1), (1, 4, 1, 1), (6,), (2, 1, 5, 6), (5, 6), ()],
    [(4, 6), (6,), (4, 1), (1, 6), ()],
    [(2, 3, 8), (2, 1, 8), (8,), (2, 3, 1), (3, 1), (1,)],
]
UNARY: list[Callable[[Tensor], Tensor]] = [
    *(torch.sigmoid, functional.gelu, functional.silu, torch.relu, torch.neg),
    *(lambda t: t * 2, lambda t: 1 - t, lambda t: t.abs() + 0.1, lambda t: (t * t + 1).sqrt()),
    *(lambda t: t.exp().clamp(max=3.0), lambda t: torch.where(t > 0, t, t * 0.1)),
]
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    *(torch.add, torch.mul, torch.sub, torch.maximum),
    *(lambda a, b: a / (b.abs() + 1), lambda a, b: torch.where(a > b, a, b * 0.5)),
]
#: What else models write; every second graph has some of it.
OTHERS: list[Callable[[Tensor], Tensor]] = [
    *(lambda t: t * (t < 0.5), lambda t: (t > 0.2).to(t.dtype) + t, lambda t: t.detach() * t),
    *(lambda t: torch.where(t > 0, t, float("-inf")).clamp(min=-3.0), lambda t: t.unsqueeze(-1)),
    *(lambda t: t[:, None], lambda t: t.flatten(-2), lambda t: t.flatten(0, 1), lambda t: t.mT),
    *(lambda t: t.movedim(1, -1), lambda t: t.unflatten(-1, (2, -1)), lambda t: t.mean() * 2),
    *(
        lambda t: t.sum(-1),
        lambda t: t.mean(1),
        lambda t: t.amax((1, 2)),
        lambda t: t.sum((-2, -1)),
    ),
    *(lambda t: torch.logsumexp(t, 1), lambda t: t.pow(2).sum(1).add(0.1).sqrt()),
    *(lambda t: t.softmax(1), lambda t: functional.normalize(t, dim=-2)),
]
OTHERS_OF_TWO: list[Callable[[Tensor, Tensor], Tensor]] = [
    *(
        lambda a, b: a * b.expand_as(a),
        lambda a, b: a * (b > 0),
        lambda a, b: a.where(b > 0, a * 2),
    ),
    *(lambda a, b: torch.where(a > b, b, 1.0), lambda a, b: functional.mse_loss(a, b.expand_as(a))),
    lambda a, b: functional.cosine_similarity(a, b, dim=-1),
]
SEEDS = range(40)


def reduction(draw: random.Random, dims: int) -> Callable[[Tensor], Tensor]:
    if not dims:
        return torch.tanh
    dim: Any = draw.choice([-1, (-2, -1), 1]) if dims == 4 else draw.choice([-1, -1, dims - 2])
    if dims == 2:
        dim = -1
    kinds: list[Callable[[Tensor], Tensor]] = [
        lambda t: t.mean(dim, keepdim=True),
        lambda t: t.amax(dim, keepdim=True),
        lambda t: t - t.mean(dim, keepdim=True),
        lambda t: functional.layer_norm(t, t.shape[-1:]),
        lambda t: t.softmax(-1),
    ]
    return draw.choice(kinds)


def made(seed: int) -> tuple[Callable[..., list[Tensor]], Sequence[Tensor]]:
    """Return a graph as a function, and its inputs."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    shapes = draw.choice(SHAPES)
    chosen = [shapes[0], *(draw.choice(shapes) for _ in range(draw.randrange(1, 5)))]
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in chosen]
    values, steps = list(inputs), []
    while len(steps) < draw.randrange(4, 14):
        kind, last = draw.random(), len(values)
        one = draw.randrange(max(0, last - 5), last) if kind < 0.7 else draw.randrange(last)
        step: tuple[Any, tuple[int, ...]]
        if kind < 0.4:
            step = draw.choice([*UNARY, *OTHERS] if seed % 2 else UNARY), (one,)
        elif kind < 0.82:
            both = [*BINARY, *OTHERS_OF_TWO] if seed % 2 else BINARY
            step = draw.choice(both), (one, draw.randrange(last))
        else:
            step = reduction(draw, values[one].dim()), (one,)
        try:
            values.append(step[0](*(values[place] for place in step[1])))
        except (RuntimeError, IndexError):  # shapes that do not go together
            continue
        steps.append(step)
    returned = [len(values) - 1, *(n for n in range(last) if draw.random() < 0.2)]
    return replayed(steps, returned), inputs


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_graph_is_the_same(seed: int) -> None:
    graph, inputs = made(seed)
    wanted = seen(graph, tuple(inputs), graph)
    compiled = torch.compile(graph, backend=FusegenBackend(everything=True))
    found = seen(graph, tuple(inputs), compiled)
    hold_seen(found, wanted, equal_nan=True)
