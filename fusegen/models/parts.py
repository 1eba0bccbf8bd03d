"""A region that no single spec can hold -> parts of it that specs can.

A spec is called on one activation, on which all its results depend. Where a region sums two tensors that are
each normalised, say, one of the norms has to be computed before.
"""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from fusegen.models.activations import activations, dependents
from fusegen.models.arguments import UnfitError
from fusegen.models.calls import Call
from fusegen.models.effects import Effects
from fusegen.models.region_spec import spec_of
from fusegen.models.regions import Region
from fusegen.models.spec_text import RegionSpec

__all__ = ["specs_of"]


def specs_of(
    region: Region, order: int, effects: Effects
) -> tuple[list[tuple[Region, RegionSpec]], list[tuple[Region, str]]]:
    """Return the parts of a region that specs hold, and the parts that none does, with the reason.

    There is one part, the region itself, if one spec holds it. Otherwise the first part is what depends on
    one of its inputs. Nothing else of the region depends on that part: no path leads from it to the others.

    Args:
        region: the region.
        order: how many derivatives its packages have.
        effects: what may not be moved in the graph.
    """
    try:
        return [(region, spec_of(region, order, effects))], []
    except UnfitError as error:
        reason = str(error)
    for x in activations(region):
        following = dependents(region, [x])
        part = replace(region, calls=_calls(region, following, inside=True))
        rest = replace(region, calls=_calls(region, following, inside=False))
        if len(part.calls) < 2 or not rest.calls:
            continue
        try:
            spec = spec_of(part, order, effects)
        except UnfitError:
            continue
        specs, refused = specs_of(rest, order, effects)
        return [(part, spec), *specs], refused
    return [], [(region, reason)]


def _calls(region: Region, nodes: set[fx.Node], *, inside: bool) -> dict[fx.Node, Call]:
    """Return the calls of a region that are among some nodes, or those that are not."""
    return {node: call for node, call in region.calls.items() if (node in nodes) == inside}
