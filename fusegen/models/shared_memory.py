"""Inputs that share memory: what a graph changes of one is changed in the others.

A graph is fused for the inputs that it was captured with. torch does not look whether others share memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fusegen.models.effects import changed_places

__all__ = ["as_captured", "places_to_compare"]

#: What the names of a module's own tensors have in them where torch passes them to a graph.
_OWN = ("_parameters_", "_buffers_")


def places_to_compare(graph: fx.Graph, inputs: Sequence[Any]) -> list[int]:
    """Return the inputs of a graph that may share memory, one of which it changes; none if it changes none.

    The tensors of a module are not looked at at each call: they share memory from the beginning, or never.

    Args:
        graph: the graph.
        inputs: example inputs.
    """
    given = [
        n
        for n, (node, value) in enumerate(
            zip(graph.find_nodes(op="placeholder"), inputs, strict=False)
        )
        if isinstance(value, Tensor)
        and not (isinstance(value, nn.Parameter) or value.is_nested)
        and value.layout is torch.strided
        and not any(part in str(node.target) for part in _OWN)
    ]
    changed = changed_places(graph)
    return given if len(given) > 1 and not changed.isdisjoint(given) else []


def as_captured(
    fused: Callable[..., Any],
    eager: Callable[..., Any],
    places: Sequence[int],
    inputs: Sequence[Any],
) -> Callable[..., Any]:
    """Return a graph that is fused where its inputs share memory as when it was captured, and else eager.

    Args:
        fused: the fused graph.
        eager: the graph as it was.
        places: the inputs to compare.
        inputs: those that it was captured with.
    """
    if not places:
        return fused
    captured = _shared(inputs, places)

    def run(*args: Any) -> Any:
        return (fused if _shared(args, places) == captured else eager)(*args)

    return run


def _shared(inputs: Sequence[Any], places: Sequence[int]) -> list[int]:
    """Return for each of some inputs which is the first that has its memory."""
    storages = [inputs[place].untyped_storage()._cdata for place in places]
    return [storages.index(storage) for storage in storages]
