"""Finds norms over the channels of an image that are written as norms of rows.

`layer_norm(x.permute(0, 2, 3, 1), ...)` copies what it reads. As a norm over dim 1 it belongs to the region
of x, which kernels compute without that copy; its result is copied instead, for those who read it permuted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from fusegen.models import functions, patterns
from fusegen.models.added_node import replace_node
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import Call, call_or_none
from fusegen.models.effects import Effects
from fusegen.models.shapes import is_dense
from fusegen.models.views import base_of, step_of

__all__ = ["write_channel_norms"]

_NORMS: Mapping[str, Callable[..., Any]] = {
    "layer_norm": functions.layer_norm_of_channels,
    "rms_norm": functions.rms_norm_of_channels,
}


def write_channel_norms(graph: fx.Graph, effects: Effects) -> int:
    """Replace norms of permuted images by norms over channels; return how many.

    Only if an op computes the image that can be in one region with the norm.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved. It knows nothing of the nodes that are added.
    """
    count = 0
    for node in list(graph.nodes):
        call = call_or_none(node)
        if call is None or call.name not in _NORMS or call.dims != (-1,):
            continue
        image = _image(node, call, effects)
        if image is not None:
            _replace(graph, node, call, image)
            count += 1
    return count


def _image(node: fx.Node, call: Call, effects: Effects) -> fx.Node | None:
    """Return the image that a norm reads with its channels last, or None if it reads something else."""
    view = call.x
    step = step_of(view) if isinstance(view, fx.Node) else None
    if not isinstance(view, fx.Node) or step is None or step.order is None:
        return None
    image, dims = base_of(view), len(step.order)
    if dims < 3 or step.order != (0, *range(2, dims), 1) or image is None:
        return None
    among = (node, view, image)
    if len({effects.stretch[n] for n in among}) > 1 or not all(map(effects.may_move, among)):
        return None
    tensor, before = tensor_of(image), call_or_none(image)
    if tensor is None or not is_dense(tensor) or not isinstance(tensor.shape[1], int):
        return None
    plain = before is not None and before.op is not None and not before.dims and not before.ends
    return image if plain and before is not None and before.name not in patterns.KEPT else None


def _replace(graph: fx.Graph, node: fx.Node, call: Call, image: fx.Node) -> None:
    """Compute a norm over the channels of an image, and copy its result to where the channels are last."""
    tensor, value = tensor_of(image), tensor_of(node)
    assert tensor is not None and value is not None
    dims = tensor.dim()
    with graph.inserting_before(node):
        given: dict[str, Any] = dict(call.attributes)
        for name, weight in call.operands.items():
            shape = (-1, *(1,) * (dims - 2))
            given[name] = weight
            if isinstance(weight, fx.Node):
                given[name] = graph.call_method("reshape", (weight, shape))
                known = tensor_of(weight)
                assert known is not None
                given[name].meta = {**weight.meta, "example_value": known.reshape(shape)}
        norm = graph.call_function(_NORMS[call.name], (image,), given)
        norm.meta = {**node.meta, "example_value": torch.empty_like(tensor, dtype=value.dtype)}
        order = (0, *range(2, dims), 1)
        view = graph.call_method("permute", (norm, order))
        view.meta = {**node.meta, "example_value": norm.meta["example_value"].permute(order)}
        copied = graph.call_method("contiguous", (view,))
    replace_node(node, copied)
