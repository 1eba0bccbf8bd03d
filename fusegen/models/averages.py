"""Finds the running averages that a norm in training updates: not every schema of torch says that it does."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

__all__ = ["averages_of"]


def averages_of(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the running averages that a node is given."""
    if node.op != "call_function":
        return
    for name, place in _places(node.target):
        given = node.kwargs.get(name, node.args[place] if place < len(node.args) else None)
        if isinstance(given, fx.Node):
            yield given


@functools.cache
def _places(function: Any) -> tuple[tuple[str, int], ...]:
    """Return the names of a function's arguments that are running averages, each with its place."""
    code, schema = getattr(function, "__code__", None), getattr(function, "_schema", None)
    if code is None and schema is None:  # of torch itself
        packet: Any = getattr(torch.ops.aten, getattr(function, "__name__", ""), None)
        schema = packet.default._schema if hasattr(packet, "default") else None
    names = code.co_varnames[: code.co_argcount] if code else ()
    names = [argument.name for argument in schema.arguments] if schema else names
    return tuple((name, place) for place, name in enumerate(names) if name.startswith("running_"))
