"""Computes a region on tensors that are seen in another way, if it computes the same of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx

from fusegen.models import patterns
from fusegen.models.arguments import UnfitError, arguments_of, listed, tensor_of
from fusegen.models.calls import Call, Comparison
from fusegen.models.effects import Effects, storages
from fusegen.models.regions import Region
from fusegen.models.shapes import is_dense, numel
from fusegen.models.small_tensors import TIMES
from fusegen.models.views import Step, image_of, inverse_of, keeps, step_of
from fusegen.models.written_views import viewed, viewed_value

__all__ = ["leave_out_undone", "may_move", "move"]

#: Steps of their own that compute each element from that element alone.
_BY_ELEMENT = frozenset({"dropout", "alpha_dropout", "masked_fill"})


def may_move(
    region: Region, steps: Sequence[Step], sizes: Mapping[str, fx.Node], *, in_rows: bool
) -> bool:
    """Return whether a region computes the same of tensors that take some steps, and none is copied for it.

    Args:
        region: the region.
        steps: the steps, of a tensor of the region's shape.
        sizes: the sizes of the graph that change from call to call.
        in_rows: whether kernels then read rows, so that rows must stay in memory as they are.
    """
    if not all(_may_take(n, c, region, steps) for n, c in region.calls.items()):
        return False
    if not all(_is_viewed(n, region, steps, sizes, in_rows=in_rows) for n in region.inputs):
        return False
    back = inverse_of(steps)
    for node in region.calls:
        value = tensor_of(node)
        moved = viewed_value(value, steps, sizes) if value is not None else None
        if moved is None or viewed_value(moved, back, sizes) is None:
            return False
    return True


def _may_take(node: fx.Node, call: Call, region: Region, steps: Sequence[Step]) -> bool:
    """Return whether an op computes the same of tensors that are seen in another way."""
    if call.op is None:
        return True
    if call.name in patterns.KEPT and call.name not in _BY_ELEMENT:
        return False
    if call.name in ("batch_norm", "prelu") or call.of_classes:
        return False
    if node.target in patterns.OF_CHANNELS:
        return False
    if not (call.keepdim or call.ends):
        return False
    # A view keeps the dims from the first that is reduced to the last.
    count = -min(call.dims) if call.dims else int(call.op.paired)
    value = tensor_of(node)
    if value is None or not keeps(steps, count) or image_of(steps, tuple(value.shape)) is None:
        return False
    if call.dims and not call.op.takes_shape and _dim_argument(node, call) is None:
        return False
    # Beside what the call reads, a node may read the condition that is computed for it.
    others = [n for n in node.all_input_nodes if n not in call.inputs and tensor_of(n) is not None]
    if not others:
        return True
    return others == [_condition(node)] and all(user in region.calls for user in others[0].users)


def _condition(node: fx.Node) -> fx.Node | None:
    """Return the comparison that a choice goes by."""
    found = [n for n in node.all_input_nodes if n.target in patterns.COMPARISONS]
    return found[0] if len(found) == 1 else None


def _dim_argument(node: fx.Node, call: Call) -> tuple[str | int, Any] | None:
    """Return where a node takes its dims, and these counted from the end; None if that is not known."""
    assert call.op is not None
    try:
        given = arguments_of(node, call.op).get("dim")
    except UnfitError:
        return None
    if given is None or not all(isinstance(d, int) for d in listed(given)):
        return None
    last = call.dims[0] if isinstance(given, int) else list(call.dims)
    for name in ("dim", "axis"):
        if name in node.kwargs:
            return name, last
    places = [n for n, a in enumerate(node.args) if type(a) is type(given) and a == given]
    return (places[0], last) if len(places) == 1 else None


def _is_viewed(
    node: fx.Node,
    region: Region,
    steps: Sequence[Step],
    sizes: Mapping[str, fx.Node],
    *,
    in_rows: bool,
) -> bool:
    """Return whether a tensor takes steps without a copy; a small one may be copied."""
    tensor = tensor_of(node)
    assert tensor is not None
    if image_of(steps, tuple(tensor.shape)) is None:
        return False
    value = viewed_value(tensor, steps, sizes, broadcasts=True)
    if value is None:
        return False
    if TIMES * numel(tuple(tensor.shape)) <= numel(region.shape):
        return True
    if _storage(value) not in storages(node):
        return False
    return not in_rows or is_dense(value) or not is_dense(tensor)


def _storage(value: Tensor) -> int:
    """Return the storage of a fake tensor."""
    return int(value.untyped_storage()._cdata)


def move(
    graph: fx.Graph,
    region: Region,
    steps: Sequence[Step],
    effects: Effects,
    sizes: Mapping[str, fx.Node],
) -> None:
    """Compute a region on tensors that take some steps, and see back what others read of it.

    Args:
        graph: the graph. It is changed, and the region is not in it any more.
        region: the region.
        steps: the steps.
        effects: what may not be moved.
        sizes: the sizes of the graph that change from call to call.
    """
    new: dict[fx.Node, fx.Node] = {}
    for node, call in region.calls.items():
        with graph.inserting_before(node):
            condition = _condition(node) if isinstance(call.condition, Comparison) else None
            for used in call.inputs:
                if used not in new:
                    new[used] = viewed(graph, used, steps, sizes, broadcasts=True)
            if condition is not None and condition not in new:
                new[condition] = _copied(graph, condition, new, steps, sizes)
            new[node] = _copied(graph, node, new, steps, sizes)
            if call.dims and call.op is not None and not call.op.takes_shape:
                _set_dims(new[node], node, call)
    back = inverse_of(steps)
    for node in reversed(region.calls):
        users = [user for user in node.users if user not in region.calls]
        users = [user for user in users if user not in new]  # a comparison that was computed for it
        if users:
            with graph.inserting_before(node):
                seen = viewed(graph, new[node], back, sizes)
            for user in users:
                user.replace_input_with(node, seen)
            leave_out_undone(graph, seen, effects, effects.stretch[node], sizes)
    for node in reversed([n for n in graph.nodes if n in new and n not in region.inputs]):
        if not node.users:
            graph.erase_node(node)


def _copied(
    graph: fx.Graph,
    node: fx.Node,
    new: dict[fx.Node, fx.Node],
    steps: Sequence[Step],
    sizes: Mapping[str, fx.Node],
) -> fx.Node:
    """Add a node that computes the same as another one of what is seen in another way."""
    made = graph.node_copy(node, lambda used: new.get(used, used))
    value = tensor_of(node)
    assert value is not None
    made.meta = {**node.meta, "example_value": viewed_value(value, steps, sizes)}
    return made


def _set_dims(made: fx.Node, node: fx.Node, call: Call) -> None:
    """Let a node count its dims from the end."""
    found = _dim_argument(node, call)
    assert found is not None
    place, dims = found
    if isinstance(place, str):
        made.kwargs = {**made.kwargs, place: dims}
    else:
        made.args = (*made.args[:place], dims, *made.args[place + 1 :])


def leave_out_undone(
    graph: fx.Graph, seen: fx.Node, effects: Effects, stretch: int, sizes: Mapping[str, fx.Node]
) -> None:
    """Let ops that read a view of a view that undoes it read what both are of.

    Args:
        graph: the graph. It is changed.
        seen: the first view.
        effects: what may not be moved.
        stretch: the stretch of what it is a view of.
        sizes: the sizes of the graph that change from call to call.
    """
    for user in list(seen.users):
        step = step_of(user)
        if step is None or effects.stretch.get(user) != stretch or not effects.may_move(user):
            continue
        value = tensor_of(seen)
        if value is None or viewed_value(value, [step], sizes) is None:
            continue
        with graph.inserting_before(user):
            found = viewed(graph, seen, [step], sizes)
        if found.args and found.args[0] is seen:  # a view that undoes nothing
            graph.erase_node(found)
            continue
        # What lies in another stretch may read no gradient, which what both are of may have.
        user.replace_all_uses_with(
            found,
            delete_user_cb=lambda reader: (
                reader.op != "output" and effects.stretch.get(reader, stretch) == stretch
            ),
        )
        if not user.users:
            graph.erase_node(user)
        if found is not seen:
            leave_out_undone(graph, found, effects, stretch, sizes)
