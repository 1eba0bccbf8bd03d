"""Random graphs of ops and views, each spec by torch, against the same graph in eager."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, replayed, seen
from torch import Tensor
from torch.nn import functional

from fusegen.models import FusegenBackend
from fusegen.models.fusion_report import VIEWS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("specs_by_torch")]

SHAPES = [
    [(2, 4, 3, 6), (2, 1, 1, 1), (1, 4, 1, 1), (4, 1, 1), (6,), (2, 4, 18), (24, 6), (1, 4, 18)],
    [(8, 6), (2, 4, 6), (6,), (2, 4, 1), (1, 4, 6), (8, 1), (2, 4, 2, 3)],
    [(2, 1, 12), (2, 12), (2, 3, 4), (1, 12), (2, 1, 1), (4,)],
]
UNARY: list[Callable[[Tensor], Tensor]] = [
    *(torch.sigmoid, functional.gelu, torch.relu, torch.neg, lambda t: t * 2 + 1),
    *(lambda t: torch.where(t > 0, t, t * 0.1), lambda t: t.masked_fill(t.abs() < 0.1, 0.5)),
]
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    *(torch.add, torch.mul, torch.maximum, lambda a, b: torch.where(a > b, a, b * 0.5)),
]
ROWS: list[Callable[[Tensor], Tensor]] = [
    lambda t: functional.layer_norm(t, t.shape[-1:]),
    lambda t: t.softmax(t.dim() - 1),
    lambda t: t - t.mean(-1, keepdim=True),
    lambda t: functional.normalize(t, dim=-1),
    lambda t: t.softmax(1) if t.dim() > 2 else t.softmax(-1),
]
SEEDS = range(40)


def view(draw: random.Random, shape: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Return a random view of a tensor of a shape, or what is a view of some tensors of it."""
    dims = len(shape)
    order = draw.sample(range(dims), dims)
    kinds: list[Callable[[Tensor], Tensor]] = [lambda t: t.permute(order), lambda t: t.contiguous()]
    if dims > 1:
        place = draw.randrange(dims - 1)
        kinds += [lambda t: t.flatten(place, place + 1), lambda t: t.transpose(place, -1)]
    place = draw.randrange(dims)
    parts = [n for n in range(2, shape[place]) if shape[place] % n == 0]
    if parts:
        part = draw.choice(parts)
        kinds += 2 * [lambda t: t.unflatten(place, (part, -1))]
    if dims < 5:
        kinds += [lambda t: t.unsqueeze(place), lambda t: t[:, None]]
    if 1 in shape and dims > 1:
        kinds.append(lambda t: t.squeeze(shape.index(1)))
    if math.prod(shape) % 6 == 0 and len(kinds) > 2:
        kinds.append(lambda t: t.reshape(-1, 6))
    return draw.choice(kinds)


def made(seed: int) -> tuple[Callable[..., list[Tensor]], Sequence[Tensor]]:
    """Return a graph as a function, and its inputs."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    shapes = draw.choice(SHAPES)
    chosen = [shapes[0], shapes[0], *(draw.choice(shapes) for _ in range(draw.randrange(1, 4)))]
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in chosen]
    values, steps = list(inputs), []
    size = values[0].numel()
    while len(steps) < draw.randrange(8, 24):
        kind, last = draw.random(), len(values)
        one = draw.randrange(max(0, last - 4), last) if kind < 0.7 else draw.randrange(last)
        step: tuple[Any, tuple[int, ...]]
        if kind < 0.25:
            step = draw.choice(UNARY), (one,)
        elif kind < 0.5:
            step = view(draw, values[one].shape), (one,)
        elif kind < 0.88:
            step = draw.choice(BINARY), (one, draw.randrange(last))
        else:
            step = draw.choice(ROWS), (one,)
        try:
            value = step[0](*(values[place] for place in step[1]))
        except (RuntimeError, IndexError):  # shapes that do not go together
            continue
        if value.numel() > size:
            continue
        values.append(value)
        steps.append(step)
    returned = [len(values) - 1, *(n for n in range(last) if draw.random() < 0.2)]
    return replayed(steps, returned), inputs


def moved(seed: int) -> int:
    """Hold a graph against eager; return how many views were moved."""
    torch._dynamo.reset()
    graph, inputs = made(seed)
    wanted = seen(graph, tuple(inputs), graph)
    used = FusegenBackend(everything=True)
    found = seen(graph, tuple(inputs), torch.compile(graph, backend=used))
    hold_seen(found, wanted)
    return used.report.changed[VIEWS]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_graph_with_views_is_the_same(seed: int) -> None:
    moved(seed)


def test_views_are_moved_in_most_of_them() -> None:
    """Else the cases above would hold for nothing."""
    assert sum(moved(seed) > 0 for seed in range(12)) > 3
