"""Attention that is spelled out becomes torch's own, which never writes the matrix of weights to memory.

`softmax(scale * q @ k^T + mask) @ v` is `scaled_dot_product_attention(q, k, v, mask, scale=scale)`. The
spelled form moves [.., T, T] values several times, whatever fuses the softmax between the two products.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from fusegen.models.arguments import Argument, tensor_of
from fusegen.models.calls import Call, call_or_none
from fusegen.models.effects import Effects
from fusegen.models.forward_alone import runs_without_gradients
from fusegen.models.shapes import same

__all__ = ["use_attention"]

_PRODUCTS = (torch.matmul, operator.matmul, "matmul", "__matmul__")
#: torch's kernels for float64 write the weights as well.
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass
class _Scores:
    """What is known of an attention on the way from its softmax down to `q @ k^T`.

    Args:
        nodes: the nodes on the way.
        scale: what the product is multiplied by.
        bias: what is added to the scaled product.
        mask: where no weight shall be, and the value that the scores have there.
    """

    nodes: list[fx.Node] = field(default_factory=list)
    scale: float = 1.0
    bias: fx.Node | None = None
    mask: tuple[fx.Node, float] | None = None


def use_attention(graph: fx.Graph, effects: Effects) -> int:
    """Replace attention that is spelled out; return how often.

    Its second derivative is not defined by all of torch's kernels, so this is for graphs that are
    differentiated once. A row of scores that are all -inf gives NaN in the spelled form and may give 0 here.

    Args:
        graph: the graph, with what its nodes compute in their `example_value`. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    return sum(_replace(graph, node, effects) for node in list(graph.nodes))


def _replace(graph: fx.Graph, softmax: fx.Node, effects: Effects) -> bool:
    """Replace the attention around a softmax, if there is one."""
    call = call_or_none(softmax)
    if call is None or call.name != "softmax" or call.dims != (-1,):
        return False
    found = _Scores()
    product = _down(call.x, found)
    weights = _up(softmax)
    if product is None or weights is None:
        return False
    above, last, dropout = weights
    replaced = [product, *found.nodes, softmax, *above, last]
    if len({effects.stretch[n] for n in replaced}) > 1 or not all(map(effects.may_move, replaced)):
        return False
    if not all(isinstance(a, fx.Node) for a in (*product.args, *last.args)):
        return False
    q, transposed, v = (a for a in (*product.args, last.args[1]) if isinstance(a, fx.Node))
    if not _fits(q, transposed, v, last, found):
        return False
    trained = not runs_without_gradients(graph)
    # On a CPU torch draws no dropout, and a bias that hides a row has wrong gradients: see `_masking`. If the
    # bias itself is trained they are right, but torch then writes the weights too, which gains nothing.
    if not _on_cuda(v) and (dropout or (found.bias is not None and trained)):
        return False
    with graph.inserting_before(last):
        q, mask = _masking(graph, found, q)
        k = graph.call_method("transpose", (transposed, -2, -1))
        options: dict[str, Any] = {"attn_mask": mask, "dropout_p": dropout, "scale": found.scale}
        result = graph.call_function(functional.scaled_dot_product_attention, (q, k, v), options)
        if not all(user.target in ("transpose", "permute") for user in last.users):
            result = graph.call_method("contiguous", (result,))  # as the product is, for a view
    result.meta = dict(last.meta)
    last.replace_all_uses_with(result)
    for node in reversed(replaced):
        graph.erase_node(node)
    return True


def _down(value: Argument, found: _Scores) -> fx.Node | None:
    """Return the product that scores are computed from, or None; note what is done to it."""
    if not isinstance(value, fx.Node) or len(value.users) != 1:
        return None
    if value.target in _PRODUCTS and len(value.args) == 2 and not value.kwargs:
        return value
    call = call_or_none(value)
    step = _STEPS.get(call.name) if call is not None else None
    if call is None or step is None or set(call.attributes) - {"value"}:
        return None
    found.nodes.insert(0, value)
    following = step(call, found)
    return _down(following, found) if following is not None else None


def _cast(call: Call, found: _Scores) -> Argument | None:
    del found
    return call.x


def _scaled(call: Call, found: _Scores) -> Argument | None:
    """Note a factor; what was added after it is not scaled, but -inf stays what it is."""
    factor = next(iter(call.operands.values()))
    x = call.x
    if call.name == "mul" and not isinstance(x, fx.Node):
        x, factor = factor, x
    if isinstance(factor, fx.Node) or not factor or found.scale != 1.0:
        return None
    found.scale = 1 / factor if call.name == "div" else factor
    return x if found.scale > 0 else None


def _biased(call: Call, found: _Scores) -> Argument | None:
    """Note a bias: the operand of a sum that is not computed from the product."""
    other = next(iter(call.operands.values()))
    if found.scale != 1.0 or found.bias is not None or found.mask is not None:
        return None
    for scores, bias in ((call.x, other), (other, call.x)):
        if isinstance(bias, fx.Node) and _leads_to_product(scores):
            found.bias = bias
            return scores
    return None


def _masked(call: Call, found: _Scores) -> Argument | None:
    """Note a mask."""
    if not isinstance(call.condition, fx.Node) or found.bias is not None or found.mask is not None:
        return None
    value = float(call.attributes.get("value", 0.0))
    # A row of scores that are all masked has equal weights if adding the value rounds them away.
    if value > -1e8 or (found.scale != 1.0 and value != float("-inf")):
        return None
    found.mask = call.condition, value
    return call.x


_STEPS: dict[str, Callable[[Call, _Scores], Argument | None]] = {
    "cast": _cast,
    "mul": _scaled,
    "div": _scaled,
    "add": _biased,
    "masked_fill": _masked,
}


def _leads_to_product(value: Argument) -> bool:
    """Return whether a value is a product, scaled or cast."""
    return _down(value, _Scores()) is not None


def _up(softmax: fx.Node) -> tuple[list[fx.Node], fx.Node, float] | None:
    """Return the nodes after a softmax, the product with v, and the share of weights dropped before it."""
    above: list[fx.Node] = []
    dropout, node = 0.0, softmax
    while len(node.users) == 1:
        (user,) = node.users
        if user.target in _PRODUCTS and len(user.args) == 2 and not user.kwargs:
            return (above, user, dropout) if user.args[0] is node else None
        call = call_or_none(user)
        if call is None or call.name not in ("cast", "dropout") or (dropout and call.op):
            return None
        if call.op is not None:
            given = {**call.op.attributes, **call.attributes}
            dropout = float(given["p"] or 0.0)
        above.append(user)
        node = user
    return None


def _fits(q: Argument, transposed: Argument, v: Argument, last: fx.Node, found: _Scores) -> bool:
    """Return whether torch's attention takes these tensors, and gives what the second product gives."""
    tensors = [t for t in map(tensor_of, (q, transposed, v, last)) if t is not None]
    if len(tensors) < 4 or any(t.dim() != 4 for t in tensors):
        return False
    first, bias = tensors[0], tensor_of(found.bias)
    masking = bias if found.mask is None else tensor_of(found.mask[0])
    if masking is not None and masking.dim() < 2:
        return False
    if first.dtype not in _DTYPES or (bias is not None and bias.dtype is not first.dtype):
        return False
    scores = (*first.shape[:3], tensors[1].shape[3])
    changed = [t for t in map(tensor_of, found.nodes) if t is not None]
    return all(same(t.shape, scores) for t in changed) and all(
        t.dtype is first.dtype and t.device == first.device and same(t.shape[:2], first.shape[:2])
        for t in tensors
    )


def _on_cuda(node: fx.Node) -> bool:
    tensor = tensor_of(node)
    return tensor is not None and tensor.is_cuda


def _masking(graph: fx.Graph, found: _Scores, q: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """Return the queries and the mask that torch's attention takes: a bias, or where weights shall be.

    A row that is hidden by a number has equal weights, and no gradient goes to its scores. So its query is 0,
    and it sees all. With the number as a bias torch would compute wrong gradients of it: float32 rounds away
    the logarithm that torch keeps of the row's sum.
    """
    if found.mask is None:
        return q, None if found.bias is None else _as_kernels_take_it(graph, found.bias, found.bias)
    hidden, value = found.mask
    seen = graph.call_function(torch.logical_not, (hidden,))
    if value == float("-inf"):
        return q, _as_kernels_take_it(graph, seen, hidden)
    empty = graph.call_method("all", (hidden,), {"dim": -1, "keepdim": True})
    seen = graph.call_function(torch.logical_or, (seen, empty))
    return graph.call_method("masked_fill", (q, empty, 0.0)), _as_kernels_take_it(
        graph, seen, hidden
    )


def _as_kernels_take_it(graph: fx.Graph, mask: fx.Node, given: fx.Node) -> fx.Node:
    """Return a mask as torch's kernels for a GPU take it; for others torch writes the weights, in float32.

    They want two dims or four, and adjacent columns (`check_attn_mask_shape` and
    `check_last_dim_stride_equals_1_dense` in aten/src/ATen/native/transformers/sdp_utils_cpp.h).

    Args:
        graph: the graph.
        mask: the mask.
        given: a node with its shape and strides.
    """
    tensor = tensor_of(given)
    assert tensor is not None  # `_fits` has seen it
    if tensor.dim() == 3:
        mask = graph.call_method("unsqueeze", (mask, 0))
    if tensor.shape[-1] != 1 and tensor.stride(-1) != 1:
        mask = graph.call_method("contiguous", (mask,))
    return mask
