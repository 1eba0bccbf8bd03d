"""Graphs that torch captured, and what fusegen makes of them, without a build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from fusegen.models.channel_norms import write_channel_norms
from fusegen.models.effects import Effects, effects_of
from fusegen.models.extremes import write_extremes
from fusegen.models.gates import write_gates
from fusegen.models.move_views import move_views
from fusegen.models.other_gates import write_other_gates
from fusegen.models.out_of_place import leave_out_unread, write_out_of_place
from fusegen.models.region_spec import spec_of
from fusegen.models.regions import Region, find_regions
from fusegen.models.rope import write_ropes
from fusegen.models.rotary import write_rotations


def captured(
    model: Callable[..., Any], *inputs: Any, dynamic: bool | None = None
) -> fx.GraphModule:
    """Return the graph of a function or module; it must be one."""
    found: list[fx.GraphModule] = []

    def grab(module: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        del inputs
        found.append(module)
        return module.forward

    torch._dynamo.reset()
    torch.compile(model, backend=grab, dynamic=dynamic)(*inputs)
    (module,) = found
    return module


def tidied(module: fx.GraphModule) -> Effects:
    """Tidy a graph as the back end does, and return what may not be moved in it."""
    leave_out_unread(module.graph)
    write_out_of_place(module.graph)
    write_extremes(module.graph)
    effects = effects_of(module.graph)
    write_channel_norms(module.graph, effects)
    write_rotations(module.graph, effects)
    write_ropes(module.graph, effects)
    write_gates(module.graph, effects)
    write_other_gates(module.graph, effects)
    leave_out_unread(module.graph)
    move_views(module.graph, lambda: effects_of(module.graph))
    leave_out_unread(module.graph)
    return effects_of(module.graph)


def regions_of(module: fx.GraphModule) -> list[Region]:
    """Return the regions of two calls or more."""
    regions, _ = find_regions(module.graph, tidied(module))
    return [region for region in regions if len(region.calls) > 1]


def ops_of(module: fx.GraphModule) -> list[list[str]]:
    """Return the ops of each region."""
    return [[call.name for call in region.calls.values()] for region in regions_of(module)]


def texts_of(module: fx.GraphModule) -> list[str]:
    """Return the spec of each region."""
    effects = tidied(module)
    regions, _ = find_regions(module.graph, effects)
    return [spec_of(region, 1, effects).text for region in regions if len(region.calls) > 1]


def outcome(run: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the values of a call and its gradients."""
    given = [t.clone().requires_grad_(t.is_floating_point()) for t in inputs]
    out = run(*given)
    outs = out if isinstance(out, tuple) else (out,)
    torch.autograd.backward(outs, [torch.cos(o.detach()) for o in outs])
    return [*(o.detach() for o in outs), *(t.grad for t in given if t.grad is not None)]
