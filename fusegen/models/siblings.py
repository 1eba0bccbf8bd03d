"""Joins regions that read one activation, so that it is read once and its gradient is summed in the kernel.

Models mix one tensor in several ways: for the keys, values and gates of an RWKV block, for two norms of a
parallel block, for the product and the two norms of a cosine. None of these reads a result of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import fx

from fusegen.models import patterns
from fusegen.models.activations import shape_of
from fusegen.models.arguments import name_of
from fusegen.models.regions import Region, Search
from fusegen.models.shapes import same

__all__ = ["join_siblings"]

#: How many products may be between two regions: their results are in memory from the first on.
_PRODUCTS_BETWEEN = 3


def join_siblings(
    graph: fx.Graph,
    regions: Sequence[Region],
    search: Search,
    fits: Callable[[Region], bool],
) -> list[Region]:
    """Return the regions of a graph, those that read one activation and are near each other as one.

    Args:
        graph: the graph.
        regions: the regions.
        search: the search that found them.
        fits: says whether one package holds a region.
    """
    products = _products_before(graph)
    found: list[Region] = []
    for region in regions:
        for other in found:
            if not _are_near(other, region, products):
                continue
            joined = search.joined(other, region)
            if joined is not None and fits(joined):
                search.take(joined)
                found = [joined if one is other else one for one in found]
                break
        else:
            found.append(region)
    return found


def _are_near(a: Region, b: Region, products: dict[fx.Node, int]) -> bool:
    """Return whether two regions read one activation in rows that are alike, with few products between."""
    between = products[next(iter(b.calls))] - products[next(reversed(a.calls))]
    if abs(between) > _PRODUCTS_BETWEEN or a.rows != b.rows or isinstance(a.rows, str):
        return False
    if not same(a.shape, b.shape):
        return False
    if any(_is_read_by_larger(region) or not _computes(region) for region in (a, b)):
        return False
    return any(same(shape_of(n), a.shape) for n in a.inputs if n in b.inputs)


def _computes(region: Region) -> bool:
    """Return whether a region has more than casts."""
    return any(call.op is not None for call in region.calls.values())


def _is_read_by_larger(region: Region) -> bool:
    """Return whether a region of another shape reads one, and may compute it itself."""
    readers = [region.around.get(user) for node in region.outputs for user in node.users]
    return any(r is not None and not same(r.shape, region.shape) for r in readers)


def _products_before(graph: fx.Graph) -> dict[fx.Node, int]:
    """Return how many products come before each node."""
    found, count = {}, 0
    for node in graph.nodes:
        found[node] = count
        count += name_of(node) in patterns.PRODUCTS
    return found
