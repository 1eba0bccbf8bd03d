"""An embedding of few columns that comes column after column, for what permutes it so.

A table of distances between positions, as attention adds it to its scores, has a row for each pair of
positions and a column for each head. torch gathers a short row at a time, at a fiftieth of the speed of
memory, and copies the result when attention wants a matrix for each head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional

from fusegen.runtime.conversion import is_plain_on_gpu

__all__ = ["embedding_by_columns"]

_is_compiling = torch.compiler.is_compiling


def embedding_by_columns(places: Tensor, table: Tensor, padding: int | None = None) -> Tensor:
    """Return the rows of a table at some places, in an order of strides that has the columns first.

    Args:
        places: the places, of int64 or int32, of any shape.
        table: [rows, columns].
        padding: a row that gets no gradient.
    """
    plain = type(table) in (Tensor, Parameter) and not _is_compiling()
    if not plain or not is_plain_on_gpu(places):
        return functional.embedding(places, table, padding)
    if torch.is_grad_enabled() and table.requires_grad:
        rows = len(table)
        own = -1 if padding is None else padding % rows
        found: Tensor = _Gathered.apply(table, places, own)
        return found
    return _gathered(table, places)


class _Gathered(torch.autograd.Function):
    """The gathered rows; each adds its gradient to the table's, by the function that torch's has."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(places)
        ctx.rows, ctx.padding = len(table), padding
        return _gathered(table, places)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        (places,) = ctx.saved_tensors
        add: Any = torch.ops.aten.embedding_dense_backward
        return add(cotangent, places, ctx.rows, ctx.padding, False), None, None


def _gathered(table: Tensor, places: Tensor) -> Tensor:
    columns = table.t().contiguous().index_select(1, places.reshape(-1))
    return columns.view(table.shape[1], *places.shape).movedim(0, -1)
