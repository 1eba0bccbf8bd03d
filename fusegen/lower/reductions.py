"""The two ways in which kernels reduce: within a row, or over the rows, which needs the whole grid."""

from __future__ import annotations

from typing import TypeGuard

from fusegen.program import Kind, Reduce, Value

__all__ = ["over_grid", "within_row"]


def within_row(value: Value) -> TypeGuard[Reduce]:
    """Whether a value is a reduction with a result for each row."""
    return isinstance(value, Reduce) and Kind.ROW in value.kind


def over_grid(value: Value) -> TypeGuard[Reduce]:
    """Whether a value is a reduction over the rows, which is known when all of them are done."""
    return isinstance(value, Reduce) and Kind.ROW not in value.kind
