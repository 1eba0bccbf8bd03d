"""Finds the tensors that a function changes though neither its name nor its schema says so.

They are the running averages of a norm in training, and the weight of an embedding with a largest norm.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx

__all__ = ["hidden_changes"]


def hidden_changes(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the nodes whose tensors a node changes without saying so."""
    if node.op != "call_function":
        return
    places = _places(node.target)

    def given(name: str) -> Any:
        place = places[name]
        return node.kwargs.get(name, node.args[place] if place < len(node.args) else None)

    changed = [given(name) for name in places if name.startswith("running_")]
    if {"weight", "max_norm"} <= places.keys() and given("max_norm") is not None:
        changed.append(given("weight"))
    yield from (value for value in changed if isinstance(value, fx.Node))


@functools.cache
def _places(function: Any) -> Mapping[str, int]:
    """Return the places of a function's arguments by their names."""
    code, schema = getattr(function, "__code__", None), getattr(function, "_schema", None)
    if code is None and schema is None:  # of torch itself
        packet: Any = getattr(torch.ops.aten, getattr(function, "__name__", ""), None)
        schema = packet.default._schema if hasattr(packet, "default") else None
    names = code.co_varnames[: code.co_argcount] if code else ()
    names = [argument.name for argument in schema.arguments] if schema else names
    return {name: place for place, name in enumerate(names)}
