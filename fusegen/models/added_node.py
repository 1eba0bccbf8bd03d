"""Adds a node to a captured graph, with the value that it has of fake tensors, or in place of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import maybe_get_fake_mode
from torch.utils import _pytree

from fusegen.models.arguments import tensor_of

__all__ = ["added", "replace_node", "value_of"]


def added(
    graph: fx.Graph,
    like: fx.Node,
    target: str | Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> fx.Node:
    """Add a call to a graph, where it is being inserted into, and return its node.

    Args:
        graph: the graph. It is changed.
        like: the node that it stands for: what torch notes of that one is true of it too.
        target: the name of a method, or a function.
        args: its arguments.
        kwargs: the same by name.
    """
    op = "call_method" if isinstance(target, str) else "call_function"
    node = graph.create_node(op, target, args, dict(kwargs))
    before = tensor_of(like)
    node.meta = dict(like.meta)
    with torch.set_grad_enabled(before is not None and before.requires_grad):
        node.meta["example_value"] = value_of(node, {})
    return node


def replace_node(node: fx.Node, made: fx.Node) -> None:
    """Let all that read a node read another one, of which the same is noted, and erase it."""
    made.meta = dict(node.meta)
    node.replace_all_uses_with(made)
    node.graph.erase_node(node)


def value_of(node: fx.Node, others: Mapping[fx.Node, fx.Node]) -> Any:
    """Return what a node computes of fake tensors.

    Args:
        node: the node.
        others: nodes that it reads, each with another one that it shall read instead.
    """

    def value(used: fx.Node) -> Any:
        return others.get(used, used).meta["example_value"]

    args, kwargs = fx.map_arg((node.args, node.kwargs), value)
    function = getattr(Tensor, node.target) if isinstance(node.target, str) else node.target
    # `torch.where(mask, x, 0.0)` makes a tensor of the number, which is a fake one within the mode alone.
    modes = (maybe_get_fake_mode(leaf) for leaf in _pytree.tree_leaves((args, kwargs)))
    with next(filter(None, modes), nullcontext()):
        return function(*args, **kwargs)
