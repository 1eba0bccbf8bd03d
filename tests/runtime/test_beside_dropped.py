"""Operands beside a value that has lost the dims of a row: one rule, wherever a package aligns them."""

from __future__ import annotations

import random

import pytest
import torch

from fusegen.runtime.dropped_dims import with_dropped
from fusegen.runtime.operand_shapes import Operand, adapted
from fusegen.runtime.rearranged import rows_alone, rows_first
from fusegen.runtime.steps import beside_dropped

CASES = [random.Random(f"950300 {n}") for n in range(40)]


@pytest.mark.parametrize("draw", CASES)
def test_calls_views_and_steps_align_alike(draw: random.Random) -> None:
    rank = draw.randint(3, 5)
    x = torch.randn([draw.choice((1, 2, 3, 4)) for _ in range(rank)])
    first = draw.randint(-rank, -1)
    last = draw.randint(first, min(-1, first + rank - 2))
    columns = tuple(range(first, last + 1))
    left = [n for d, n in enumerate(x.shape, -rank) if d not in columns]
    own = [draw.choice((1, n)) for n in left][draw.randint(0, len(left)) :]
    tensor = torch.randn(own)

    value = x.mean(columns)
    placed = with_dropped(tensor, x.shape, columns)
    assert placed.dim() == rank
    torch.testing.assert_close(
        (x.mean(columns, keepdim=True) * placed).squeeze(columns), value * tensor
    )
    (called,) = adapted(x, [Operand("w", "row", beside_dropped=True)], [tensor], (first, last), 0)
    torch.testing.assert_close(called.expand_as(placed.expand_as(called)), placed.expand_as(called))
    torch.testing.assert_close(value * beside_dropped(value, tensor, columns), value * tensor)
    order = (*(d for d in range(-rank, 0) if d not in columns), *columns)
    view = rows_alone(tensor, order, len(columns), rows_first(x, order), dropped=True)
    torch.testing.assert_close(view, placed.permute(*order))


def test_what_does_not_broadcast_to_the_rest_is_of_all_dims() -> None:
    x, tensor = torch.randn(2, 3, 5), torch.randn(2, 1, 1)
    assert with_dropped(tensor, x.shape, (-1,)) is tensor
    wider = torch.randn(4)
    assert with_dropped(wider, x.shape, (-1,)) is wider
    torch.testing.assert_close(beside_dropped(x.sum(-1), tensor, (-1,)), tensor[..., 0])
