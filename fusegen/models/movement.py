"""Lets kernels of packages move the elements of large tensors on a GPU, where a graph leaves that to torch.

These are rolls, the copies that torch makes of what is reshaped or multiplied, the gradients of a tensor's
parts and those of biases; see runtime/movement.py. Small parts that packages read are copied at once.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from fusegen.models.arguments import name_of, tensor_of
from fusegen.models.effects import Effects
from fusegen.models.shapes import numel
from fusegen.models.views import step_of
from fusegen.runtime import movement
from fusegen.runtime.gathered import embedding_by_columns

__all__ = ["move_by_kernels"]

_LINEAR = frozenset({functional.linear, torch._C._nn.linear})
#: The arguments of torch's embedding.
_EMBEDDING = (
    "input",
    "weight",
    "padding_idx",
    "max_norm",
    "norm_type",
    "scale_grad_by_freq",
    "sparse",
)
#: The most columns of an embedding for which torch's gather of rows is slow.
_FEW_COLUMNS = 64
_ROLL = frozenset({"roll", torch.roll})
_APART = frozenset(
    {"unbind", "split", "chunk", torch.unbind, torch.split, torch.chunk, torch.functional.split}
)
#: Their arguments after the tensor.
_ARGUMENTS = {
    "unbind": ("dim",),
    "split": ("split_size_or_sections", "dim"),
    "chunk": ("chunks", "dim"),
}
#: Products that read batches of matrices, whose batches torch makes one dim.
_MATMUL = frozenset({"matmul", operator.matmul, torch.matmul})
#: Functions of which the result is a copy where the strides of what they are given allow no view.
_RESHAPES = frozenset({"reshape", "flatten", "contiguous", torch.reshape, torch.flatten})


def move_by_kernels(graph: fx.Graph, effects: Effects, fused: Collection[fx.Node]) -> int:
    """Replace functions of torch by those of runtime/movement.py; return how many.

    The nodes stay the same, but for new ones before copies.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved; it gets to know the new nodes.
        fused: the nodes that packages compute.
    """
    count = 0
    for node in list(graph.nodes):
        if node in fused or not effects.may_move(node) or not _is_on_gpu(node):
            continue
        if node.target is functional.embedding:
            if not (gathered := _gathered_by_columns(node)):
                continue
            _replace(node, embedding_by_columns, gathered)
        elif not _is_large(node):
            if node.target not in _APART or not (of_one_copy := _equal_parts(node, fused)):
                continue
            _replace(node, movement.parts_by_one_copy, (node.args[0], *of_one_copy))
        elif node.target in _LINEAR:
            _replace(node, movement.linear, node.args, node.kwargs)
        elif node.target in _ROLL:
            _replace(node, movement.roll, node.args, node.kwargs)
        elif node.target in _APART and (found := _parts(node)) is not None:
            _replace(node, movement.parts, (node.args[0], *found))
        elif node.target in _RESHAPES and _copies(node):
            _compact_before(graph, node, node.args[0], effects)
        elif node.target in _MATMUL and (copied := _copied_batches(node)):
            for given in copied:
                _compact_before(graph, node, given, effects)
        else:
            continue
        count += 1
    return count


def _first(node: fx.Node) -> Tensor | None:
    """Return the tensor that a function reads first."""
    given = node.args[0] if node.args else None
    return tensor_of(given) if isinstance(given, fx.Node) else None


def _is_on_gpu(node: fx.Node) -> bool:
    """Whether a function reads a tensor on a GPU first."""
    tensor = _first(node)
    return tensor is not None and tensor.is_cuda


def _is_large(node: fx.Node) -> bool:
    """Whether kernels are worth it for what a function reads first."""
    tensor = _first(node)
    return tensor is not None and numel(tensor.shape) >= movement.FEW


def _gathered_by_columns(node: fx.Node) -> tuple[Any, ...] | None:
    """Return the arguments of a large embedding of few columns that all its readers permute to come first.

    None for another, or one that rounds or scales more than torch's plain one does.
    """
    given = dict(zip(_EMBEDDING, node.args, strict=False)) | node.kwargs
    changes = [given.get(name) for name in ("max_norm", "scale_grad_by_freq", "sparse")]
    value = tensor_of(node)
    if value is None or any(changes) or not isinstance(given.get("weight"), fx.Node):
        return None
    if numel(value.shape) < movement.FEW or value.shape[-1] > _FEW_COLUMNS:
        return None
    if not node.users or not all(map(_puts_columns_first, node.users)):
        return None
    return given["input"], given["weight"], given.get("padding_idx")


def _puts_columns_first(node: fx.Node) -> bool:
    """Return whether a node is a view in another order, with the last dim before all others."""
    step = step_of(node)
    return step is not None and step.order is not None and step.order[0] == len(step.order) - 1


def _equal_parts(node: fx.Node, fused: Collection[fx.Node]) -> tuple[int, int] | None:
    """Return how many equal parts a node takes from a tensor with gaps between them, and along which dim.

    None if they are not known, or something other than packages reads them.
    """
    found, tensor = _parts(node), _first(node)
    if found is None or tensor is None:
        return None
    sizes, dim = found
    if sizes is None:
        return None
    even = len(sizes) > 1 and len(set(sizes)) == 1
    gaps = any(size != 1 for size in tensor.shape[: dim % tensor.dim()])
    read = all(_read_by(part, fused) for part in node.users)
    return (len(sizes), dim) if even and gaps and read else None


def _read_by(node: fx.Node, fused: Collection[fx.Node]) -> bool:
    """Return whether packages alone read a node, or views of it."""
    views = ("unsqueeze", "view", "reshape", operator.getitem, torch.unsqueeze)
    return bool(node.users) and all(
        user in fused or (user.target in views and _read_by(user, fused)) for user in node.users
    )


def _replace(node: fx.Node, function: Any, args: tuple[Any, ...], kwargs: Any = None) -> None:
    node.op, node.target = "call_function", function
    node.args, node.kwargs = args, dict(kwargs or {})


def _parts(node: fx.Node) -> tuple[tuple[int, ...] | None, int] | None:
    """Return the sizes of the parts into which a node takes a tensor apart, None for selections, and the dim.

    None if they are not known in advance.
    """
    name = name_of(node)
    places = zip(("x", *_ARGUMENTS[name]), node.args, strict=False)
    given = dict(places) | node.kwargs
    dim, tensor = given.get("dim", 0), tensor_of(node.args[0])
    if tensor is None or type(dim) is not int:
        return None
    if name == "unbind":
        return None, dim
    parts = node.meta.get("example_value")
    sizes = tuple(part.shape[dim] for part in parts) if isinstance(parts, (list, tuple)) else ()
    return (sizes, dim) if sizes and all(type(size) is int for size in sizes) else None


def _copies(node: fx.Node) -> bool:
    """Return whether a reshaped tensor is a copy, whatever its sizes are."""
    before, after = tensor_of(node.args[0]), tensor_of(node)
    if before is None or after is None:
        return False
    if any(type(n) is not int for n in (*before.shape, *before.stride(), *after.shape)):
        return False
    if node.target == "contiguous":
        return len(node.args) == 1 and not node.kwargs and not before.is_contiguous()
    return before.numel() == after.numel() and not _is_viewable(before, after.shape)


def _is_viewable(tensor: Tensor, shape: Sequence[int]) -> bool:
    """Return whether there is a view of a tensor with another shape."""
    try:
        torch.empty_strided(tensor.shape, tensor.stride(), device="meta").view(shape)
    except RuntimeError:
        return False
    return True


def _copied_batches(node: fx.Node) -> list[fx.Node]:
    """Return what a product of batches of matrices copies, since no stride leads from batch to batch."""
    found = []
    for given in dict.fromkeys(node.args):
        tensor = tensor_of(given) if isinstance(given, fx.Node) else None
        if tensor is None or tensor.dim() < 4 or tensor.numel() == 0:
            continue
        sizes = (*tensor.shape, *tensor.stride())
        known = all(type(n) is int for n in sizes) and 0 not in tensor.stride()
        if known and not _is_viewable(tensor, (-1, *tensor.shape[-2:])):
            assert isinstance(given, fx.Node)
            found.append(given)
    return found


def _compact_before(graph: fx.Graph, node: fx.Node, given: Any, effects: Effects) -> None:
    """Let a node read a contiguous copy of what it is given, which it then makes none of."""
    with graph.inserting_before(node):
        copy = graph.call_function(movement.compacted, (given,))
    tensor = tensor_of(given)
    assert tensor is not None
    copy.meta = {**given.meta, "example_value": torch.empty_like(tensor).contiguous()}
    effects.add(copy, node)
    node.replace_input_with(given, copy)
