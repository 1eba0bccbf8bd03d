"""Gives a batch norm that has no weight and bias ones and zeros, as the op of a spec has both."""

from __future__ import annotations

from torch import fx
from torch.nn import functional

from fusegen.models.added_node import added
from fusegen.models.arguments import tensor_of
from fusegen.models.beside import has_another_beside

__all__ = ["give_weights"]

#: The places of what `nn.functional.batch_norm` takes by position or by name.
_PLACES = {"input": 0, "running_mean": 1, "weight": 3, "bias": 4}


def give_weights(graph: fx.Graph) -> None:
    """Give batch norms without a weight one of ones, and a bias of zeros, if another op is beside them.

    Args:
        graph: the graph. It is changed.
    """
    for node in list(graph.nodes):
        if node.target is not functional.batch_norm or not has_another_beside(node):
            continue
        given = {
            name: node.kwargs.get(name, node.args[place] if place < len(node.args) else None)
            for name, place in _PLACES.items()
        }
        x, average = given["input"], tensor_of(given["running_mean"])
        if not isinstance(x, fx.Node) or average is None:
            continue
        if given["weight"] is not None or given["bias"] is not None:
            continue
        # In the averages' dtype, which under autocast is not x's; but made of x, as the averages will change.
        like = (x, tuple(average.shape))
        with graph.inserting_before(node):
            ones, zeros = (
                added(graph, x, name, like, {"dtype": average.dtype})
                for name in ("new_ones", "new_zeros")
            )
        args = [ones if p == 3 else zeros if p == 4 else a for p, a in enumerate(node.args)]
        named = {"weight": ones, "bias": zeros}
        node.args = tuple(args)
        node.kwargs = {**node.kwargs, **{n: t for n, t in named.items() if _PLACES[n] >= len(args)}}
