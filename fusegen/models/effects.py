"""What a captured graph does beside computing values: tensors that it changes, and modes that it switches.

Whoever changes a tensor, and whoever reads one that is changed later, keeps its order. A tensor that the
graph itself makes may be read anywhere after its last change. Two tensors are one if their fake tensors share
a storage. Nothing is moved across a switch of a mode, such as `no_grad` or autocast. What torch draws at
random is drawn in the same order.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree

from fusegen.models import patterns
from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.calls import call_or_none
from fusegen.models.hidden_changes import hidden_changes

__all__ = [
    "Effects",
    "body_of",
    "changed_places",
    "changes",
    "effects_of",
    "inplace_place",
    "is_in_place",
    "storages",
    "switches",
]

#: Python's operators that change their first operand.
_OPERATORS = frozenset(
    getattr(operator, f"i{name}")
    for name in (
        *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"),
        *("lshift", "rshift"),
    )
)
#: Functions that draw random numbers by means of others; those others have a tag.
_DRAWING = frozenset(
    {
        *("dropout1d", "dropout2d", "dropout3d", "feature_dropout", "feature_alpha_dropout"),
        *("rrelu", "random_", "binomial", "scaled_dot_product_attention", "checkpoint"),
        *("fractional_max_pool2d", "fractional_max_pool3d", "multi_head_attention_forward"),
    }
)
#: Words in the names of functions that switch a mode.
_SWITCHES = ("_set_grad_enabled", "_enter_", "_exit_", "_nesting", "saved_tensors_hooks", "_level")


@dataclass(frozen=True)
class Effects:
    """What may not be moved in a graph.

    Args:
        before: what must run before each node that it reads no value of.
        stretch: each node's stretch: how many switches of a mode come before it.
        fixed: the nodes that change a tensor, or read one before its last change. A tensor that comes from
            outside is seen outside, and may be changed there before the backward pass needs its value.
        nested: the nodes inside a transform of `torch.func`.
        gradless: the nodes where gradients are off.
    """

    before: dict[fx.Node, tuple[fx.Node, ...]]
    stretch: dict[fx.Node, int]
    fixed: frozenset[fx.Node]
    nested: frozenset[fx.Node]
    gradless: frozenset[fx.Node] = frozenset()

    def may_move(self, node: fx.Node) -> bool:
        """Return whether a node may be computed elsewhere in its stretch."""
        return node not in self.nested and node not in self.fixed

    def add(self, node: fx.Node, like: fx.Node) -> None:
        """Take up a new node, which stands where another does: after the same nodes, in its stretch."""
        self.before[node] = self.before.get(like, ())
        self.stretch[node] = self.stretch[like]


def effects_of(graph: fx.Graph, inputs: Sequence[Any] = ()) -> Effects:
    """Return what may not be moved in a graph.

    Args:
        graph: the graph.
        inputs: example inputs; those that share memory are one tensor.
    """
    last = _last_changes(graph, inputs)
    stretch, nested, number, level = {}, set(), 0, 0
    gradless, gradients = set(), True
    for node in graph.nodes:
        name = name_of(node)
        if name == "_set_grad_enabled" and node.args:
            gradients = node.args[0] is not False
        elif not gradients:
            gradless.add(node)
        if switches(node):
            number += 1
            level += ("increment_nesting" in name) - ("decrement_nesting" in name)
        elif level > 0:
            nested.add(node)
        stretch[node] = number
        number += switches(node)
    before: dict[fx.Node, tuple[fx.Node, ...]] = {}
    fixed: list[fx.Node] = []
    given: set[int] = set()
    passed: set[fx.Node] = set()
    drawn: tuple[fx.Node, ...] = ()
    changed_at: dict[fx.Node, fx.Node] = {}  # by what changes unseen, who was the last to change it
    for node in graph.nodes:
        if node.op not in ("call_function", "call_method"):
            given |= storages(node) if node.op != "output" else set()
            continue
        changed = [s for s in _touched(node) if s in last]
        if given.isdisjoint(changed) and all(last[s] in passed for s in changed):
            before[node] = tuple({last[s] for s in changed})
        else:
            before[node] = tuple(fixed[-1:])
            fixed.append(node)
        if _draws(node):
            before[node] += drawn
            drawn = (node,)
        for moved in hidden_changes(node):
            if moved in changed_at:
                before[node] += (changed_at[moved],)
            changed_at[moved] = node
        passed.add(node)
    return Effects(before, stretch, frozenset(fixed), frozenset(nested), frozenset(gradless))


def _last_changes(graph: fx.Graph, inputs: Sequence[Any]) -> dict[int, fx.Node]:
    """Return the storages of tensors that are changed, each with the last node that changes it."""
    last: dict[int, fx.Node] = {}
    for node in graph.nodes:
        for base in _changed_by(node):
            last |= dict.fromkeys(storages(base), node)
    place = {node: number for number, node in enumerate(graph.nodes)}
    for shared in _overlapping(graph, inputs):
        changes = [last[storage] for storage in shared if storage in last]
        if changes:
            last |= dict.fromkeys(shared, max(changes, key=place.__getitem__))
    return last


def body_of(node: fx.Node) -> fx.GraphModule | None:
    """Return the graph that a node calls with the rest of its arguments, such as that of a checkpoint."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node) or first.op != "get_attr":
        return None
    body = getattr(node.graph.owning_module, str(first.target), None)
    return body if isinstance(body, fx.GraphModule) else None


def changed_places(graph: fx.Graph) -> set[int]:
    """Return which inputs a graph changes, by their places."""
    last: set[int] = set(_last_changes(graph, ()))
    for node in graph.nodes:
        last |= {storage for moved in hidden_changes(node) for storage in storages(moved)}
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    return {n for n, given in enumerate(placeholders) if not last.isdisjoint(storages(given))}


def changes(node: fx.Node) -> bool:
    """Return whether a node changes a tensor."""
    return any(True for _ in _changed_by(node))


def storages(node: fx.Node) -> set[int]:
    """Return the storages of the tensors that a node gives."""
    leaves = _pytree.tree_leaves(node.meta.get("example_value"))
    found = {_storage(t) for t in leaves if isinstance(t, torch.Tensor)}
    op = patterns.op_of(node)
    call = call_or_none(node) if op is not None and op.eval_mode == "identity" else None
    if call is not None and call.op is None and isinstance(call.x, fx.Node):
        found |= storages(call.x)  # dropout in evaluation returns its input; a fake one copies it
    return found


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


def switches(node: fx.Node) -> bool:
    """Return whether a node switches a mode: by its name, or since nobody could tell its value."""
    if node.op != "call_function":
        return False
    if any(word in name_of(node) for word in _SWITCHES):
        return True
    return not node.users and tensor_of(node) is None and not node.all_input_nodes


def _draws(node: fx.Node) -> bool:
    """Return whether torch draws random numbers for a node; those of dropout are drawn by kernels."""
    op, name = patterns.op_of(node), name_of(node)
    if op is not None and op.eval_mode == "identity":
        return False
    return name in _DRAWING or _is_random(name)


@functools.cache
def _is_random(name: str) -> bool:
    """Return whether torch says of a function of this name that it draws random numbers."""
    function = getattr(torch.ops.aten, name, None)
    if not isinstance(function, torch._ops.OpOverloadPacket):
        return False
    tag = torch.Tag.nondeterministic_seeded
    forms = [getattr(function, form) for form in function._overload_names]
    return any(tag in form.tags for form in forms)


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
    body = body_of(node)
    if body is not None:
        yield from _changed_inside(node, body)
    for moved in hidden_changes(node):
        if any(moved not in hidden_changes(user) for user in moved.users):
            yield moved  # otherwise norms alone read it: nobody else can tell when it changes


def _changed_inside(node: fx.Node, body: fx.GraphModule) -> Iterator[fx.Node]:
    """Yield the nodes whose tensors a graph changes that a node calls."""
    changed, given = changed_places(body.graph), node.args[1:]
    if len(body.graph.find_nodes(op="placeholder")) == len(given):
        yield from (n for place in changed if isinstance(n := given[place], fx.Node))
    elif changed:  # it takes its inputs in another way than a checkpoint
        yield from node.all_input_nodes


def _overlapping(graph: fx.Graph, inputs: Sequence[Any]) -> list[set[int]]:
    """Return the storages of inputs, those that share memory together."""
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    memory: dict[int, set[int]] = {}
    for node, given in zip(placeholders, inputs, strict=False):
        if isinstance(given, torch.Tensor):
            memory.setdefault(_storage(given), set()).update(storages(node))
    return list(memory.values())
