"""Adds a region to a report: its ops, in the words in which a report has them."""

from __future__ import annotations

from fusegen.models.calls import Call, call_of
from fusegen.models.cost import cost_of
from fusegen.models.fusion_report import FusedRegion, Report
from fusegen.models.region import Region
from fusegen.models.spec_text import RegionSpec

__all__ = ["note"]


def note(
    report: Report, region: Region, reason: str, spec: RegionSpec | None = None
) -> FusedRegion:
    """Add a region to a report, and return what it says.

    Args:
        report: the report.
        region: the region.
        reason: why it is not fused; empty if it is.
        spec: its spec, if it has one.
    """
    inlined = spec.inlined if spec else ()
    calls = {**region.calls, **{node: call_of(node) for node in inlined}}
    computed = sorted(calls.items(), key=lambda item: item[0])
    noted = FusedRegion(
        (*_sums(region), *(_shown(call) for _, call in computed if call.part is None)),
        f"[{', '.join(map(str, region.shape))}]",
        cost_of(region, inlined),
        spec.name if spec else "",
        spec.text if spec else "",
        reason,
    )
    report.regions.append(noted)
    return noted


def _sums(region: Region) -> list[str]:
    """Return the ops that add what a region then takes parts of."""
    parts = [call for call in region.calls.values() if call.part is not None]
    return ["add"] * len(parts[0].operands) if parts else []


def _shown(call: Call) -> str:
    """Return what a report calls an op."""
    return "gate" if "formula" in call.attributes else "cast" if call.is_mask else call.name
