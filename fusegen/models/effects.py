"""What a captured graph does beside computing values: tensors that it changes, and modes that it switches.

Whoever reads a changed tensor, and whoever changes it, keeps its order. Two tensors are one if their fake
tensors share a storage. Nothing is moved across a switch of a mode, such as `no_grad` or autocast.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.nn import functional
from torch.utils import _pytree

from fusegen.models.arguments import name_of, tensor_of

__all__ = ["Effects", "effects_of", "inplace_place", "is_in_place", "storages"]

#: Python's operators that change their first operand.
_OPERATORS = frozenset(
    getattr(operator, f"i{name}")
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"),
        *("lshift", "rshift"),
    )
)
#: Words in the names of functions that switch a mode.
_SWITCHES = ("_set_grad_enabled", "_enter_", "_exit_", "_nesting", "saved_tensors_hooks", "_level")


@dataclass(frozen=True)
class Effects:
    """What may not be moved in a graph.

    Args:
        ordered: the nodes that must run in this order.
        stretch: each node's stretch: how many switches of a mode come before it.
        changed: the storages of tensors that are changed.
        nested: the nodes inside a transform of `torch.func`.
    """

    ordered: list[fx.Node]
    stretch: dict[fx.Node, int]
    changed: frozenset[int]
    nested: frozenset[fx.Node]

    @property
    def before(self) -> dict[fx.Node, fx.Node]:
        """The node that must run before each of the ordered ones but the first."""
        return dict(zip(self.ordered[1:], self.ordered, strict=False))

    def may_move(self, node: fx.Node) -> bool:
        """Return whether a node may be computed elsewhere in its stretch."""
        return node not in self.nested and not self.changed & _touched(node)


def effects_of(graph: fx.Graph, inputs: Sequence[Any] = ()) -> Effects:
    """Return what may not be moved in a graph.

    Args:
        graph: the graph.
        inputs: example inputs; those that share memory are one tensor.
    """
    changed: set[int] = set()
    for node in graph.nodes:
        for base in _changed_by(node):
            changed |= storages(base)
    changed |= _overlapping(graph, inputs, changed)
    stretch, nested, number, level = {}, set(), 0, 0
    for node in graph.nodes:
        name = name_of(node)
        if _switches(node):
            number += 1
            level += ("increment_nesting" in name) - ("decrement_nesting" in name)
        elif level > 0:
            nested.add(node)
        stretch[node] = number
        number += _switches(node)
    called = [n for n in graph.nodes if n.op in ("call_function", "call_method")]
    ordered = [n for n in called if changed & _touched(n)]
    return Effects(ordered, stretch, frozenset(changed), frozenset(nested))


def storages(node: fx.Node) -> set[int]:
    """Return the storages of the tensors that a node gives."""
    leaves = _pytree.tree_leaves(node.meta.get("example_value"))
    return {_storage(t) for t in leaves if isinstance(t, torch.Tensor)}


def _storage(tensor: torch.Tensor) -> int:
    """Return a tensor's storage; a transform of torch.func wraps the tensor that has it."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return int(tensor.untyped_storage()._cdata)


def is_in_place(node: fx.Node) -> bool:
    """Return whether a node changes what it is called on."""
    name = name_of(node)
    if node.op == "call_method":
        return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")
    if node.op != "call_function":
        return False
    named = name.endswith("_") and not name.endswith("__")
    return named or node.target in _OPERATORS or _inplace(node)


def inplace_place(node: fx.Node) -> int | None:
    """Return where a function of `nn.functional` takes `inplace`."""
    code = getattr(node.target, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()
    return names.index("inplace") if "inplace" in names else None


def _inplace(node: fx.Node) -> bool:
    place = inplace_place(node)
    given = node.kwargs.get("inplace", False)
    return bool(given) or (place is not None and len(node.args) > place and bool(node.args[place]))


def _switches(node: fx.Node) -> bool:
    """Return whether a node switches a mode: by its name, or since nobody could tell its value."""
    if node.op != "call_function":
        return False
    if any(word in name_of(node) for word in _SWITCHES):
        return True
    return not node.users and tensor_of(node) is None and not node.all_input_nodes


def _touched(node: fx.Node) -> set[int]:
    """Return the storages that a node reads or gives."""
    return set().union(*map(storages, (node, *node.all_input_nodes)))


def _changed_by(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the nodes whose tensors a node changes."""
    if node.op not in ("call_function", "call_method"):
        return
    first = node.args[0] if node.args else None
    if is_in_place(node) or node.target is operator.setitem:
        if isinstance(first, fx.Node):
            yield first
        else:  # a list of tensors
            yield from node.all_input_nodes
    out = node.kwargs.get("out")
    if out is not None:
        yield from (n for n in _pytree.tree_leaves(out) if isinstance(n, fx.Node))
    schema = getattr(node.target, "_schema", None)
    if schema is not None and schema.is_mutable:
        yield from node.all_input_nodes
    for average in _averages(node):
        if len(average.users) > 1:  # a norm alone reads them: nobody else can tell when they change
            yield average


def _averages(node: fx.Node) -> Iterator[fx.Node]:
    """Yield the running averages that a norm in training updates."""
    if node.target in (functional.batch_norm, torch.batch_norm, functional.instance_norm):
        given = (*node.args[1:3], node.kwargs.get("running_mean"), node.kwargs.get("running_var"))
        yield from (n for n in given if isinstance(n, fx.Node))


def _overlapping(graph: fx.Graph, inputs: Sequence[Any], changed: set[int]) -> set[int]:
    """Return the storages of inputs that share memory with a changed one."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    memory: dict[int, set[int]] = {}
    for node, given in zip(placeholders, inputs, strict=False):
        if isinstance(given, torch.Tensor):
            memory.setdefault(_storage(given), set()).update(storages(node))
    return set().union(*(found for found in memory.values() if found & changed))
