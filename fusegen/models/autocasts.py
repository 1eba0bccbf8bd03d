"""Writes out what autocast converts for products.

Under autocast a region of 16 bits with weights of float32 has a result of float32, as in torch. A product
that reads it converts it. As an op of the graph the conversion belongs to the region: it then writes 16 bits,
and reads its other tensors as they are, which it would convert to float32. Products that read one tensor
share its copy.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from fusegen.models import patterns
from fusegen.models.added_node import added
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects
from fusegen.models.views import step_of
from fusegen.runtime.shared_cast import shared_cast

__all__ = ["write_casts"]

_HALVES = (torch.bfloat16, torch.float16)


def write_casts(graph: fx.Graph, effects: Effects) -> int:
    """Convert each tensor of float32 before the products that read it, if autocast would; return how many
    tensors several products share.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved in the graph; it gets to know the new nodes.
    """
    readers: dict[tuple[fx.Node, torch.dtype, int], list[fx.Node]] = {}
    for node in graph.nodes:
        value = tensor_of(node)
        if name_of(node) not in patterns.PRODUCTS or value is None or value.dtype not in _HALVES:
            continue
        if effects.may_move(node):
            for given in node.all_input_nodes:
                if _is_converted(given):
                    key = given, value.dtype, effects.stretch[node]
                    readers.setdefault(key, []).append(node)
    for (given, dtype, _), products in readers.items():
        if len(products) > 1:
            _share(given, dtype, products, effects)
        elif _is_read_alone(given, products[0]):
            with graph.inserting_before(products[0]):
                made = added(graph, given, "to", (given, dtype))
            effects.add(made, products[0])
            products[0].replace_input_with(given, made)
    return sum(len(products) > 1 for products in readers.values())


def _is_converted(given: fx.Node) -> bool:
    """Return whether a tensor is of float32 and no parameter: of these autocast keeps one copy."""
    tensor = tensor_of(given)
    computed = given.op in ("call_function", "call_method")
    return computed and tensor is not None and tensor.dtype is torch.float32


def _is_read_alone(given: fx.Node, product: fx.Node) -> bool:
    """Return whether a product alone reads a tensor that the graph computes, be it through views."""
    node, reader = given, product
    while set(node.users) == {reader} and node.op in ("call_function", "call_method"):
        if step_of(node) is None:
            return True
        node, reader = node.all_input_nodes[0], node
    return False


def _share(given: fx.Node, dtype: torch.dtype, products: list[fx.Node], effects: Effects) -> None:
    """Let products read one copy of a tensor."""
    graph, first = given.graph, products[0]
    with graph.inserting_before(first):
        copies = added(graph, given, shared_cast, (given, dtype, len(products)))
        effects.add(copies, first)
        for place, product in enumerate(products):
            made = added(graph, given, operator.getitem, (copies, place))
            effects.add(made, first)
            product.replace_input_with(given, made)
