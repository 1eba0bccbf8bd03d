"""Tidies a captured graph: leaves out what nobody reads, and makes in-place ops plain if nobody can tell."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from fusegen.models import patterns
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.calls import call_or_none
from fusegen.models.effects import effects_of, inplace_place, is_in_place, storages

__all__ = ["leave_out_unread", "write_out_of_place"]

_PLAIN: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
#: Functions and methods that return a tensor of their own, and methods that fill it: the masks of drop path.
_EMPTY = frozenset({"empty", "empty_like", "new_empty", "new_full", "new_ones", "new_zeros"})
_FILLS = frozenset({"bernoulli_", "uniform_", "normal_"})


def leave_out_unread(graph: fx.Graph) -> None:
    """Remove ops and views that nobody reads: torch captures them too."""
    for node in reversed(list(graph.nodes)):
        if not node.users and is_pure(node):
            graph.erase_node(node)


def is_pure(node: fx.Node) -> bool:
    """Return whether nobody can tell that a node ran, but by its value."""
    if node.op not in ("call_function", "call_method") or is_in_place(node) or "out" in node.kwargs:
        return False
    if name_of(node) in patterns.VIEWS or node.target in {*patterns.COMPARISONS, *patterns.JOINS}:
        return True
    call = call_or_none(node)
    return call is not None and call.name not in ("batch_norm", "dropout", "alpha_dropout")


def write_out_of_place(graph: fx.Graph) -> None:
    """Replace an op in place by its plain form, where the tensor it changes is seen by nobody else.

    The changed tensor must come from an op of this graph, and have no other view. Whoever reads it later then
    reads the new value. A change under `no_grad` stays: gradients pass it by.
    """
    stretch = effects_of(graph).stretch
    order = {node: place for place, node in enumerate(graph.nodes)}
    holders: dict[int, list[fx.Node]] = {}
    for node in graph.nodes:
        for storage in storages(node):
            holders.setdefault(storage, []).append(node)
    for node in list(graph.nodes):
        base = node.args[0] if node.args else None
        if not isinstance(base, fx.Node) or not is_in_place(node):
            continue
        value = tensor_of(node)
        if (
            value is None
            or stretch[base] != stretch[node]
            or not _is_alone(node, base, order, holders)
            or not _keeps_dtype(node, base)
        ):
            continue
        for user in list(base.users):
            if order[user] > order[node]:
                user.replace_input_with(base, node)
        if node.op == "call_method":
            node.target = str(node.target)[:-1]
        elif (plain := _plain_function(node.target)) is not None:
            node.target = plain
        else:
            _leave_out_inplace(node)
        # The new value has the storage, as do its views. The value before has one of its own.
        for storage in storages(node):
            holders[storage] = [n for n in holders[storage] if order[n] >= order[node]]
        base.meta["example_value"] = value.clone()
        holders |= {storage: [base] for storage in storages(base)}


def _is_alone(
    node: fx.Node,
    base: fx.Node,
    order: dict[fx.Node, int],
    holders: dict[int, list[fx.Node]],
) -> bool:
    """Return whether an op can be plain: it has a plain form, and no other node holds what it changes."""
    plain = node.target
    if node.op == "call_function":
        plain = _plain_function(node.target)
        if plain is None and inplace_place(node) is None:
            return False
    elif str(node.target).startswith("__"):
        return False
    if not _is_fresh(base, order, holders):
        return False
    if any(order[user] < order[node] and _is_cast(user) for user in base.users):
        return False
    held = (n for storage in storages(base) for n in holders.get(storage, ()))
    if any(order[n] < order[node] and n is not base and set(n.users) != {base} for n in held):
        return False
    own, node.target = node.target, plain or node.target
    call = call_or_none(node)
    node.target = own
    return call is not None and call.op is not None


def _plain_function(function: Any) -> Any:
    """Return the function that gives what another one writes into its first argument; None if none does."""
    if function in _PLAIN:
        return _PLAIN[function]
    name = str(getattr(function, "__name__", ""))
    homes = (functional, torch) if name.endswith("_") and not name.endswith("__") else ()
    home = next((home for home in homes if getattr(home, name, None) is function), None)
    return None if home is None else getattr(home, name[:-1], None)


def _is_cast(node: fx.Node) -> bool:
    """Return whether a node's value may be the tensor it is called on: a cast, dropout in evaluation."""
    call = call_or_none(node)
    return call is not None and call.op is None


def _keeps_dtype(node: fx.Node, base: fx.Node) -> bool:
    """Return whether the plain form has the dtype and shape of what the op changes."""
    before = tensor_of(base)
    if before is None:
        return False
    for used in node.all_input_nodes:
        other = tensor_of(used)
        if other is not None and other.dtype is not before.dtype:
            return False
    value = tensor_of(node)
    return value is not None and value.shape == before.shape and value.dtype is before.dtype


def _leave_out_inplace(node: fx.Node) -> None:
    place = inplace_place(node)
    if place is not None and len(node.args) > place:
        node.args = (*node.args[:place], False, *node.args[place + 1 :])
    node.kwargs = {name: value for name, value in node.kwargs.items() if name != "inplace"}


def _is_fresh(node: fx.Node, order: dict[fx.Node, int], holders: dict[int, list[fx.Node]]) -> bool:
    """Return whether a node's value is a tensor of its own, or one that it has filled and nobody else has."""
    if node.op == "call_method" and node.target in _FILLS:
        made = node.args[0]
        return isinstance(made, fx.Node) and name_of(made) in _EMPTY and len(made.users) == 1
    if node.op not in ("call_function", "call_method") or is_in_place(node):
        return False
    held = storages(node)
    return bool(held) and all(
        order[other] >= order[node] for storage in held for other in holders[storage]
    )
