"""Rotations of a row's halves in captured graphs: how people write them, and what only looks like one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from shared.captured import captured, ops_of, tidied
from shared.captured import texts_of as texts
from torch import Tensor, nn

from fusegen.models.functions import rope, rotate_half
from fusegen.spec import parse
from fusegen.tools.check.reference import run_chain

X = torch.randn(2, 3, 5, 8)
TABLES = torch.randn(2, 5, 8).unbind()


def sliced(x: Tensor) -> Tensor:
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat((-second, first), dim=-1)


def with_every_dim(x: Tensor) -> Tensor:
    return torch.cat([-x[:, :, :, 4:8], x[:, :, :, 0:4]], 3)


def chunked(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.concat((second.neg(), first), dim=-1)


def split(x: Tensor) -> Tensor:
    first, second = torch.split(x, 4, dim=3)
    return torch.cat((torch.neg(second), first), axis=-1)


def rotate_every_two(x: Tensor) -> Tensor:
    """As transformers has it for GPT-J and GLM."""
    x1, x2 = x[..., ::2], x[..., 1::2]
    return torch.stack((-x2, x1), dim=-1).flatten(-2)


def unbound(x: Tensor) -> Tensor:
    """As diffusers has it for Flux."""
    real, imaginary = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([-imaginary, real], dim=-1).flatten(3)


def selected(x: Tensor) -> Tensor:
    pairs = x.unflatten(-1, (-1, 2))
    return torch.stack([-pairs[..., 1], pairs[..., 0]], 4).reshape(x.shape)


#: Rotations of the halves, and of neighbours.
HALVES = [sliced, with_every_dim, chunked, split]
NEIGHBOURS = [rotate_every_two, unbound, selected]


@pytest.mark.parametrize("written", HALVES + NEIGHBOURS)
def test_every_way_to_write_it_is_one_region(written: Callable[[Tensor], Tensor]) -> None:
    def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return x * cos + written(x) * sin

    module = captured(rotary, X, *TABLES)
    assert ops_of(module) == [["mul", "rotate_half", "mul", "add"]]
    (text,) = texts(module)
    found = run_chain(parse(text, "rotary"), X, dict(zip(("t1", "t2"), TABLES, strict=True)), {})
    torch.testing.assert_close(found, rotary(X, *TABLES))
    # What is not fused after all runs as it was.
    module.recompile()
    torch.testing.assert_close(module(X, *TABLES)[0], rotary(X, *TABLES))
    torch.testing.assert_close(rotate_half(X, written in NEIGHBOURS), written(X))


@pytest.mark.parametrize(
    "other",
    [
        lambda x: torch.cat((x[..., 4:], -x[..., :4]), -1),
        lambda x: torch.cat((-x[..., :4], x[..., 4:]), -1),
        lambda x: torch.cat((-x[..., 5:], x[..., :5]), -1),
        lambda x: torch.cat((-x[..., 1::2], x[..., ::2]), -1),
        lambda x: torch.cat((-x[..., 4:], (2 * x)[..., :4]), -1),
        lambda x: torch.cat((-x[..., 4:], x[..., :4], x), -1)[..., :8],
        lambda x: torch.cat((-x[..., 4:], x[..., :4]), 1)[:, :3].repeat(1, 1, 1, 2),
        lambda x: torch.stack((x[..., 1::2], -x[..., ::2]), -1).flatten(-2),
        lambda x: torch.stack((-x[..., 4:], x[..., :4]), -1).flatten(-2),
        lambda x: torch.stack((-x[..., 1::2], x[..., ::2]), -2).flatten(-2),
        lambda x: torch.cat((-x[..., 1::2], x[..., ::2]), -1).reshape(x.shape),
        lambda x: torch.stack((-x[..., 1::2], x[..., ::2]), -1).reshape(2, 3, 8, 5).transpose(2, 3),
    ],
)
def test_what_only_looks_like_one_stays(other: Callable[[Tensor], Tensor]) -> None:
    module = captured(lambda x: other(x) * 2 + x, X)
    tidied(module)
    assert all(node.target is not rotate_half for node in module.graph.nodes)


def test_halves_of_a_tensor_that_changes_stay() -> None:
    """The negated half is from before the change, the other from after it."""

    def changed(x: Tensor) -> Tensor:
        x = x.clone()
        first, second = x.chunk(2, -1)
        minus = -second
        x.view(-1).mul_(2)
        return torch.cat((minus, first), -1) * 2

    module = captured(changed, X)
    tidied(module)
    assert all(node.target is not rotate_half for node in module.graph.nodes)


def test_a_norm_before_it_is_in_the_same_region() -> None:
    norm = nn.RMSNorm(8, eps=1e-6)

    def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = norm(x)
        return x * cos + sliced(x) * sin

    module = captured(turned, X, *TABLES)
    assert ops_of(module) == [["rms_norm", "mul", "rotate_half", "mul", "add"]]


@pytest.mark.parametrize("learned", [False, True])
def test_tables_get_a_gradient_if_they_need_one(learned: bool) -> None:
    tables = [t.clone().requires_grad_(learned) for t in TABLES]
    module = captured(lambda x, c, s: x * c + sliced(x) * s, X.clone().requires_grad_(), *tables)
    (text,) = texts(module)
    assert ("t1: {dims: [2, 3]}\n" in text) == learned
    assert ("t1: {kind: full, gradient: false}\n" in text) != learned


class Rotary:
    """One of the ways in which people turn a row, or its first columns, with tables of either width.

    Args:
        rng: draws it.
        size: the size of a row.
    """

    def __init__(self, rng: random.Random, size: int) -> None:
        self.size, self.neighbours = size, rng.random() < 0.5
        self.width = rng.choice([size, size, *(size * 2 // n for n in (3, 4, 8) if size % n == 0)])
        self.by_pair, self.swapped, self.split = (rng.random() < 0.5 for _ in range(3))
        ways = ("slices", "unbind") if self.neighbours else ("slices", "chunk", "every time")
        self.take = rng.choice(ways)
        self.method = rng.random() < 0.5

    def __str__(self) -> str:
        return str(vars(self))

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.take == "unbind":
            first, second = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
        elif self.neighbours:
            first, second = x[..., ::2], x[..., 1::2]
        elif self.take == "chunk":
            first, second = x.chunk(2, dim=-1)
        else:
            first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return first, second

    def joined(self, first: Tensor, second: Tensor) -> Tensor:
        if not self.neighbours:
            return torch.cat((first, second), dim=-1)
        both = torch.stack([first, second], dim=-1)
        return both.flatten(-2) if self.method else both.reshape(*first.shape[:-1], -1)

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = self.halves(x)
        if not self.by_pair:
            return x * cos + self.joined(-second, first) * sin
        if self.take == "every time":
            return self.joined(
                self.halves(x)[0] * cos - self.halves(x)[1] * sin,
                self.halves(x)[1] * cos + self.halves(x)[0] * sin,
            )
        if self.swapped:
            return self.joined(cos * first - sin * second, sin * first + cos * second)
        return self.joined(first * cos - second * sin, second * cos + first * sin)

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if self.width == self.size:
            return self.turned(x, cos, sin)
        if self.split:
            front, rest = torch.split(x, [self.width, self.size - self.width], dim=-1)
        else:
            front, rest = x[..., : self.width], x[..., self.width :]
        return torch.cat((self.turned(front, cos, sin), rest), -1)


@pytest.mark.parametrize("seed", range(8))
def test_random_ways_to_write_rotary_embedding(seed: int) -> None:
    """Whole rows and a part of them, by halves and by neighbours, with tables of columns and of pairs."""
    rng = random.Random(seed)
    rotary = Rotary(rng, rng.choice((8, 16, 24)))
    x = torch.randn(2, 3, 5, rotary.size, requires_grad=True)
    shape = rng.choice([(5,), (2, 1, 5), (3, 5)])
    tables = torch.randn(2, *shape, rotary.width // 2 if rotary.by_pair else rotary.width).unbind()
    module = captured(lambda *given: rotary(*given) * 1.5, x, *tables)
    found = texts(module)
    assert len(found) == 1, (str(rotary), found)
    (text,) = found
    whole = rotary.width == rotary.size and not rotary.by_pair
    assert ("rotate_half(" if whole else "rope(") in text, rotary
    parsed = parse(text, "rotary")
    named = dict(zip([o.name for o in parsed.operands], tables, strict=True))
    torch.testing.assert_close(run_chain(parsed, x, named, {}), rotary(x, *tables) * 1.5)
    module.recompile()
    torch.testing.assert_close(module(x, *tables)[0], rotary(x, *tables) * 1.5)


@pytest.mark.parametrize(
    "other",
    [
        lambda x1, x2, c, s: torch.cat((x1 * c + x2 * s, x2 * c - x1 * s), -1),
        lambda x1, x2, c, s: torch.cat((x1 * c - x2 * s, x2 * s + x1 * c), -1),
        lambda x1, x2, c, s: torch.cat((x1 * c - x2 * s, x1 * c + x2 * s), -1),
        lambda x1, x2, c, s: torch.cat((x2 * c - x1 * s, x1 * c + x2 * s), -1),
        lambda x1, x2, c, s: torch.stack((x1 * c - x2 * s, x2 * c + x1 * s), -1).flatten(-2),
        lambda x1, x2, c, s: torch.cat((x1 * c - x2 * s, x2 * c + x1 * s), 0),
        lambda x1, x2, c, s: torch.cat((x1 * c - x2 * s, 2 * x2 * c + x1 * s), -1),
    ],
)
def test_what_only_looks_like_rotary_embedding_stays(other: Callable[..., Tensor]) -> None:
    tables = [table[..., :4].clone() for table in TABLES]
    module = captured(lambda x, c, s: other(x[..., :4], x[..., 4:], c, s) * 2, X, *tables)
    tidied(module)
    assert all(node.target is not rope for node in module.graph.nodes)


def test_tables_that_need_a_gradient_stay() -> None:
    tables = [table[..., :4].clone().requires_grad_() for table in TABLES]

    def turned(x: Tensor, c: Tensor, s: Tensor) -> Tensor:
        return torch.cat((x[..., :4] * c - x[..., 4:] * s, x[..., 4:] * c + x[..., :4] * s), -1)

    module = captured(turned, X, *tables)
    tidied(module)
    assert all(node.target is not rope for node in module.graph.nodes)


@pytest.mark.parametrize("width", [6, 12])
def test_a_width_that_is_no_part_of_a_row(width: int) -> None:
    """Where 6 or 12 of 16 columns are turned, they are fused without the rest."""

    def partly(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned, rest = x[..., :width], x[..., width:]
        return torch.cat((turned * cos + sliced(turned) * sin, rest), -1)

    x, tables = torch.randn(2, 3, 5, 16), torch.randn(2, 5, width).unbind()
    assert ops_of(captured(partly, x, *tables)) == [["mul", "rotate_half", "mul", "add"]]
