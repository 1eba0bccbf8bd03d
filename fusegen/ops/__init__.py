"""The ops, one declaration each. Importing this package declares them all."""

from __future__ import annotations

from collections.abc import Mapping

from fusegen.ops import (
    activations,
    arithmetic,
    dropout,
    elementary,
    gates,
    losses,
    matmul,
    normalization,
    reductions,
    rotary,
    softmax,
    windows,
)
from fusegen.ops.declare import RefusedError, aliases, call, find, op, registered
from fusegen.ops.model import Op, Range, Submodule

__all__ = ["Op", "Range", "RefusedError", "Submodule", "aliases", "call", "find", "op", "registry"]

_MODULES = (
    *(matmul, windows, arithmetic, elementary, activations, gates, rotary, dropout),
    *(softmax, reductions, normalization, losses),
)


def registry() -> Mapping[str, Op]:
    """Return every op by its name, in the order of their declaration."""
    return registered()
