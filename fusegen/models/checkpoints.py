"""Checkpoints inside a model: `torch.utils.checkpoint`, which torch.compile captures as a call of a graph.

What it captures is for Inductor, which draws each random number once. Run as it is, such a call draws anew
when it is repeated in the backward pass, so that gradients are those of another dropout, and it refuses
running averages that it changes. Here it is what it is in eager.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import checkpoint as checkpoints

from fusegen.models.effects import body_of, changed_places

__all__ = ["checkpoint", "write_checkpoints"]


def write_checkpoints(
    graph: fx.Graph, inputs: Sequence[Any]
) -> dict[str, tuple[fx.GraphModule, list[Any]]]:
    """Let a graph that torch captured run its checkpoints as eager does.

    Args:
        graph: the graph. It is changed.
        inputs: example inputs.

    Returns:
        The graphs of the checkpoints by their names, each with example inputs.
    """
    given = dict(zip(graph.find_nodes(op="placeholder"), inputs, strict=False))
    found: dict[str, tuple[fx.GraphModule, list[Any]]] = {}
    for node in graph.nodes:
        body = body_of(node)
        if body is None or node.target is not torch.ops.higher_order.tag_activation_checkpoint:
            continue
        node.target = checkpoint
        node.kwargs = {**node.kwargs, "changed": tuple(sorted(changed_places(body.graph)))}
        values = [given.get(n, n.meta.get("example_value")) for n in node.args[1:]]
        found[str(node.args[0].target)] = body, values
    return found


def checkpoint(
    body: fx.GraphModule,
    *args: Any,
    changed: tuple[int, ...] = (),
    preserve_rng_state: bool = True,
    determinism_check: str = "default",
    **others: Any,
) -> Any:
    """Run a graph, and again in the backward pass, instead of keeping what is computed in it.

    Parameters and what the graph changes, such as running averages, are no inputs of the checkpoint, as they
    are none where a model calls its own submodule: torch refuses inputs that have changed.

    Args:
        body: the graph.
        args: its inputs.
        changed: those that it changes, by their places.
        preserve_rng_state, determinism_check: as in torch.
        others: what else torch's function takes, which says how it works, not what it computes.
    """
    del others
    still = [n for n in range(len(args)) if n not in changed]
    inputs = [n for n in still if not isinstance(args[n], nn.Parameter)]
    if not any(isinstance(args[n], Tensor) for n in inputs):
        inputs = still  # their device is that of the random numbers

    def run(*given: Any) -> Any:
        taken = dict(zip(inputs, given, strict=True))
        return body(*(taken.get(n, value) for n, value in enumerate(args)))

    contexts = body.meta.get("_checkpoint_context_fn", checkpoints.noop_context_fn)
    return checkpoints.checkpoint(
        run,
        *(args[n] for n in inputs),
        use_reentrant=False,
        context_fn=contexts,
        determinism_check=determinism_check,
        preserve_rng_state=preserve_rng_state,
    )
