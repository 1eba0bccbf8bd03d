"""Lets reductions keep their dims: `x.mean(-1)[:, None]` becomes `x.mean(-1, keepdim=True)`.

What is computed of a mean can then be seen as the rows are, and belongs to the region that reduces them.
"""

from __future__ import annotations

from torch import fx

from fusegen.models.added_node import replace_node
from fusegen.models.arguments import tensor_of
from fusegen.models.beside import is_arithmetic
from fusegen.models.calls import Call, call_or_none
from fusegen.models.detached import detached_in
from fusegen.models.effects import Effects, effects_of
from fusegen.models.views import step_of

__all__ = ["drop_dims", "keep_dims"]


def keep_dims(graph: fx.Graph, effects: Effects) -> None:
    """Let each reduction whose value an op reads keep its dims, and drop them in a view after it.

    Args:
        graph: the graph. It is changed.
        effects: what may not be moved in the graph.
    """
    for node in list(graph.nodes):
        call = _reduction(node)
        if call is None or call.keepdim or not effects.may_move(node) or not _is_read(node):
            continue
        if any(isinstance(argument, bool) for argument in node.args):
            continue  # perhaps whether it keeps its dims
        value = tensor_of(node)
        assert value is not None
        for dim in sorted(dim + value.dim() + len(call.dims) for dim in call.dims):
            value = value.unsqueeze(dim)  # the same storage, of which the graph has views
        with graph.inserting_before(node):
            kept = _written(graph, node, keepdim=True)
            kept.meta = {**node.meta, "example_value": value}
            dropped = graph.call_method("squeeze", (kept, call.dims))
        replace_node(node, dropped)


def drop_dims(graph: fx.Graph) -> None:
    """Let reductions drop their dims themselves, where only a view that does so reads them.

    Args:
        graph: the graph. It is changed.
    """
    stretch = effects_of(graph).stretch
    for view in list(graph.nodes):
        if view.op != "call_method" or view.target != "squeeze" or len(view.args) != 2:
            continue
        kept, dims = view.args
        call = _reduction(kept) if isinstance(kept, fx.Node) else None
        if call is None or not isinstance(kept, fx.Node) or dims != call.dims:
            continue
        if set(kept.users) != {view} or not kept.kwargs.get("keepdim"):
            continue
        if stretch[view] != stretch[kept]:
            continue  # under no_grad no gradient goes through it
        with graph.inserting_before(kept):
            node = _written(graph, kept, keepdim=False)
        replace_node(view, node)
        graph.erase_node(kept)


def _reduction(node: fx.Node) -> Call | None:
    """Return a reduction of rows to floating-point numbers; None if a node is none."""
    call = call_or_none(node)
    if call is None or call.op is None or call.op.indexes or call.ends or call.of_classes:
        return None
    return call if call.dims and "keepdim" in call.op.attributes else None


def _written(graph: fx.Graph, node: fx.Node, *, keepdim: bool) -> fx.Node:
    """Add a reduction that keeps its dims, or drops them."""
    made = graph.node_copy(node)
    made.kwargs = {**node.kwargs, "keepdim": keepdim}
    return made


def _is_read(node: fx.Node) -> bool:
    """Return whether an op reads a value, be it through views or detached."""
    passed = [u for u in node.users if step_of(u) is not None or detached_in([u])]
    return any(map(is_arithmetic, node.users)) or any(map(_is_read, passed))
