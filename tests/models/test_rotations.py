"""Rotations of a row's halves in captured graphs: how people write them, and what only looks like one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shared.captured import captured, ops_of, tidied
from shared.captured import texts_of as texts
from torch import Tensor, nn
from torch.nn import functional

from fusegen.models.patterns import rotate_half
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
    assert ("t1: full\n" in text) == learned
    assert ("t1: {kind: full, gradient: false}\n" in text) != learned


def test_only_the_first_columns() -> None:
    """What is turned is a slice; the rest is put beside it as before."""

    def partly(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        turned, rest = x[..., :8], x[..., 8:]
        return torch.cat((turned * cos + sliced(turned) * sin, rest), -1)

    x = functional.pad(X, (0, 4))
    assert ops_of(captured(partly, x, *TABLES)) == [["mul", "rotate_half", "mul", "add"]]
