"""The functions of torch that convolve, as a graph calls them, and where they take their arguments."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.nn import functional

__all__ = ["BIAS", "GROUPS", "INPUT", "WEIGHT", "argument", "convolutions"]

#: The place and the name of an argument; they are the same for transposed ones.
INPUT, WEIGHT, BIAS, GROUPS = (0, "input"), (1, "weight"), (2, "bias"), (6, "groups")


def convolutions(*dims: int) -> frozenset[Any]:
    """Return the convolutions, transposed or not, over so many dims of space."""
    return frozenset(
        getattr(module, f"conv{transposed}{n}d")
        for module in (torch, functional)
        for transposed in ("", "_transpose")
        for n in dims
    )


def argument(node: fx.Node, which: tuple[int, str]) -> Any:
    """Return an argument of a call, or None if it is not given."""
    place, name = which
    return node.args[place] if len(node.args) > place else node.kwargs.get(name)
