"""Why a region has no spec that can be built, and which of its nodes are the reason."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from fusegen import spec as specs_
from fusegen.base.errors import SpecError
from fusegen.chain.cut_into_segments import spans_of
from fusegen.models.arguments import UnfitError
from fusegen.models.calls import Call
from fusegen.models.effects import Effects
from fusegen.models.region_spec import spec_of
from fusegen.models.regions import Region, region_of
from fusegen.models.spec_text import RegionSpec

__all__ = ["mistake_in", "refusal", "refused_nodes", "spec_again"]


@functools.lru_cache(maxsize=4096)  # models have blocks that are alike
def mistake_in(text: str) -> str:
    """Return what is wrong with the text of a spec; empty if nothing is."""
    try:
        spans_of(specs_.parse(text, "region"))
    except SpecError as error:
        return error.message
    return ""


def refused_nodes(region: Region, order: int, effects: Effects) -> dict[fx.Node, str]:
    """Return the nodes of a region that are the reason why it has no spec, such as a product with 0.

    If none of them is refused by itself, it is the last one with which the rest has none.
    """
    alone = {node: region_of(node, call) for node, call in region.calls.items()}
    found = {
        n: why for n, one in alone.items() if (why := refusal(one, order, effects, of_unfit=False))
    }
    calls = list(region.calls.items())
    for count in range(len(calls), 0, -1) if not found else ():
        why = refusal(replace(region, calls=dict(calls[:count])), order, effects)
        if not why:
            return found
        found = {calls[count - 1][0]: why}
    return found


def refusal(region: Region, order: int, effects: Effects, *, of_unfit: bool = True) -> str:
    """Return why a region has no spec that can be built; empty if it has one.

    Args:
        region: the region.
        order: how many derivatives its package has.
        effects: what may not be moved in the graph.
        of_unfit: whether it is a reason that no spec says what it computes.
    """
    try:
        return mistake_in(spec_of(region, order, effects).text)
    except UnfitError as error:
        return str(error) if of_unfit else ""


def spec_again(
    order: int, effects: Effects, region: Region, again: Mapping[fx.Node, Mapping[fx.Node, Call]]
) -> RegionSpec:
    """Return the spec of a region that computes activations again.

    Raises:
        UnfitError: if it has none.
    """
    spec = spec_of(region, order, effects, again=again)
    if wrong := mistake_in(spec.text):
        raise UnfitError(wrong)
    return spec
