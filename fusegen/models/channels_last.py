"""Runs a graph's convolutions in channels-last where that saves more than it costs.

On a GPU, tensor cores multiply channels-last tensors. cuDNN transposes what comes in another format before
a convolution, and its result back. If values stay channels-last from one convolution to the next, only those
that come into such a stretch, or leave it, are converted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx
from torch.nn import functional

from fusegen.models import patterns
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import call_or_none
from fusegen.models.convolutions import GROUPS, INPUT, WEIGHT, argument, convolutions
from fusegen.models.cost import bytes_of
from fusegen.models.effects import Effects
from fusegen.models.shapes import equal
from fusegen.runtime.memory_format import FORMATS, converted, is_faster

__all__ = ["convert_by_kernel", "use_channels_last"]

_CONVOLUTIONS = convolutions(2, 3)
#: Functions beside ops whose result has the format of what they read, and that are as fast in each.
_FOLLOWING = frozenset(
    {
        *(functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d),
        *(functional.max_pool3d, functional.avg_pool3d, functional.adaptive_avg_pool3d),
        *(torch.max_pool2d, torch.max_pool3d, functional.interpolate, torch.cat),
    }
)
#: Functions whose result is in the order of its dims, whatever they read.
_DENSE = frozenset({functional.layer_norm, functional.linear, torch.layer_norm})
#: Of the ops that are steps of their own, those whose kernels read channels-last as it is.
_KEPT = frozenset({"batch_norm", "group_norm", "instance_norm", "dropout", "masked_fill"})


@dataclass
class _Plan:
    """Which values are channels-last.

    Args:
        last: the nodes whose own value is channels-last.
        entering: the nodes whose value is converted to channels-last.
        leaving: the nodes whose value is converted back, for some of their users.
        saved: the bytes that convolutions need not transpose, less those that are converted.
    """

    last: set[fx.Node] = field(default_factory=set)
    entering: set[fx.Node] = field(default_factory=set)
    leaving: set[fx.Node] = field(default_factory=set)
    saved: int = 0

    def holds(self, nodes: Iterable[fx.Node]) -> bool:
        """Return whether one of these nodes is read in channels-last."""
        return any(node in self.last or node in self.entering for node in nodes)


def use_channels_last(graph: fx.Graph, effects: Effects) -> int:
    """Convert values so that convolutions read channels-last; return how many convolutions do.

    Results of the graph keep the format that they had.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    convolutions = [node for node in graph.nodes if node.target in _CONVOLUTIONS]
    if not all(map(_is_faster, convolutions)):
        return 0
    plan = _plan(graph, effects)
    if plan.saved <= 0:
        return 0
    for node in plan.entering:
        tensor = tensor_of(node)
        assert tensor is not None  # it is an image
        users = [user for user in node.users if user in plan.last]
        _convert(graph, node, users, FORMATS[tensor.dim()])
    for node in plan.leaving:
        users = [user for user in node.users if _minds(user, effects)]
        _convert(graph, node, users, torch.contiguous_format)
    return len(convolutions)


def convert_by_kernel(graph: fx.Graph) -> None:
    """Let packages convert what is converted from one memory format to another, where they are there."""
    for node in graph.nodes:
        if node.op == "call_method" and node.target == "contiguous" and len(node.args) == 1:
            wanted, tensor = node.kwargs.get("memory_format"), tensor_of(node)
            if wanted is not None and tensor is not None and tensor.dim() in FORMATS:
                node.op, node.target = "call_function", converted
                node.args, node.kwargs = (*node.args, wanted), {}


def _is_faster(node: fx.Node) -> bool:
    """Return whether a convolution is faster in channels-last."""
    value, weight = tensor_of(node), tensor_of(argument(node, WEIGHT))
    groups = argument(node, GROUPS) or 1
    return value is not None and weight is not None and is_faster(value, weight, groups)


def _plan(graph: fx.Graph, effects: Effects) -> _Plan:
    """Let every value follow what it is computed from, until none changes.

    What is channels-last without that stays so: the model was given in that format.
    """
    before = {node for node in _images(graph.nodes) if _is_last(node)}
    plan = _Plan(last=set(before))
    following = [node for node in graph.nodes if _follows(node, effects)]
    known = -1
    while known < len(plan.last) + len(plan.entering):
        known = len(plan.last) + len(plan.entering)
        for node in following:
            images = list(_images(_read(node)))
            if node.target in _CONVOLUTIONS or plan.holds(images):
                plan.last.add(node)
                plan.entering.discard(node)
                plan.entering |= {image for image in images if image not in plan.last}
    for node in _images(plan.last - before):
        if any(_minds(user, effects) for user in node.users):
            plan.leaving.add(node)
        if node.target in _CONVOLUTIONS:
            plan.saved += 2 * sum(map(bytes_of, (*_images(_read(node)), node)))
    plan.saved -= 2 * sum(map(bytes_of, (*plan.entering, *plan.leaving)))
    return plan


def _read(node: fx.Node) -> list[fx.Node]:
    """Return the nodes whose format decides that of a node's value."""
    if node.target not in _CONVOLUTIONS:
        return node.all_input_nodes
    image = argument(node, INPUT)
    return [image] if isinstance(image, fx.Node) else []


def _follows(node: fx.Node, effects: Effects) -> bool:
    """Return whether a node gives channels-last if it reads it, and is no slower then."""
    value = tensor_of(node)
    if value is None or value.dim() not in FORMATS or node in effects.nested:
        return False
    if not effects.may_move(node):
        return False
    if node.target in _CONVOLUTIONS or node.target in _FOLLOWING:
        return True
    call = call_or_none(node)
    if call is None:
        return False
    if call.name in patterns.KEPT:
        return call.name in _KEPT
    channels, space = (1 - value.dim(),), tuple(range(2 - value.dim(), 0))
    return not call.dims or call.dims in (channels, space)


def _minds(node: fx.Node, effects: Effects) -> bool:
    """Return whether a node that reads an image must find it in the format that it had.

    What is permuted and then read by functions that copy it is the same in any format, and less work if the
    channels are last.
    """
    if _follows(node, effects):
        return False
    return node.target != "permute" or not all(map(_makes_dense, node.users))


def _makes_dense(node: fx.Node) -> bool:
    """Return whether a function's result has the order of its dims, whatever it reads."""
    if node.target == "contiguous":
        return len(node.args) == 1 and not node.kwargs
    return node.target in _DENSE


def _images(nodes: Iterable[fx.Node]) -> Iterator[fx.Node]:
    """Yield the nodes whose value has channels and space, so that its format matters."""
    for node in nodes:
        tensor = tensor_of(node)
        if tensor is None or tensor.dim() not in FORMATS:
            continue
        if tensor.shape[1] != 1 and any(size != 1 for size in tensor.shape[2:]):
            yield node


def _is_last(node: fx.Node) -> bool:
    """Return whether an image is channels-last in the graph as it was captured."""
    tensor = tensor_of(node)
    return tensor is not None and equal(tensor.stride(1), 1)


def _convert(
    graph: fx.Graph,
    node: fx.Node,
    users: Sequence[fx.Node],
    memory_format: torch.memory_format,
) -> None:
    """Let some users of a node read it in another format."""
    first = next(n for n in graph.nodes if n in users)
    with graph.inserting_before(first):
        converted = graph.call_method("contiguous", (node,), {"memory_format": memory_format})
    converted.meta = dict(node.meta)
    for user in users:
        user.replace_input_with(node, converted)
