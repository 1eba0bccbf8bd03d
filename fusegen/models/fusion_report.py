"""What was fused in a model and what was not, with the reason, as objects and as text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from fusegen.models.cost import Cost
from fusegen.models.graph_units import Unit
from fusegen.toolchain.model_cache import default_folder

__all__ = [
    "AGAIN",
    "ATTENTION",
    "BIASES",
    "CASTS",
    "CHANNELS_LAST",
    "CHANNEL_NORMS",
    "MEANS",
    "MOVED",
    "PARTS",
    "RECOMPUTED",
    "UNBOUND",
    "VIEWS",
    "WEIGHTS",
    "FusedRegion",
    "Report",
]

#: What is done to a graph beside fusing regions.
AGAIN = "activations, computed again where they would be kept"
ATTENTION = "attention spelled out, now scaled_dot_product_attention"
BIASES = "biases of convolutions, now added by the region that follows"
CASTS = "tensors that autocast converts, now once for several products"
CHANNELS_LAST = "convolutions, now in channels-last"
CHANNEL_NORMS = "norms of permuted images, now over channels"
MEANS = "means, whose gradients are added where they are not written"
MOVED = "copies, parts and biases, now by kernels of packages"
PARTS = "regions, now from the parts of a tensor"
RECOMPUTED = "activations, computed again in another region"
UNBOUND = "tensors, now taken apart at once"
VIEWS = "views, moved out from between ops"
WEIGHTS = "weights, whose gradients products sum in one tensor"


@dataclass(frozen=True)
class FusedRegion:
    """A region of a captured graph.

    Args:
        ops: the ops in it, in the graph's order.
        shape: the shape of its activation, as text.
        cost: what a forward pass moves, before and after.
        package: the package that computes it; empty if it is not fused.
        spec: the text of its spec; empty if there is none.
        reason: why it is not fused; empty if it is.
    """

    ops: tuple[str, ...]
    shape: str
    cost: Cost
    package: str = ""
    spec: str = ""
    reason: str = ""


@dataclass
class Report:
    """What was done with a model's graphs.

    Args:
        regions: the regions of all graphs, fused or not.
        left: the other nodes: how often each function occurs for each reason.
        apart: how many of these are ops that have another beside them.
        alone: how many are ops that have none.
        changed: what else was done to the graphs, and how often.
        graphs: how many graphs torch captured.
        folders: where their specs and packages are.
        units: each graph as units, of which each fused region is one.
    """

    regions: list[FusedRegion] = field(default_factory=list)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    apart: int = 0
    alone: int = 0
    graphs: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    folders: list[Path] = field(default_factory=list)
    units: list[tuple[Unit, ...]] = field(default_factory=list)

    def settle(self, region: FusedRegion, reason: str) -> None:
        """Say of a region in the report why it is not fused, or that it is: an empty reason."""
        place = next(n for n, known in enumerate(self.regions) if known is region)
        self.regions[place] = replace(region, reason=reason)

    @property
    def fused(self) -> list[FusedRegion]:
        """The regions that packages compute."""
        return [region for region in self.regions if not region.reason]

    @property
    def fused_ops(self) -> int:
        """How many ops packages compute; casts and detached tensors are none."""
        return sum(map(_count, self.fused))

    @property
    def fusible_ops(self) -> int:
        """How many ops have another beside them, be it through views, fused or not."""
        return self.apart + sum(map(_count, self.regions))

    def __str__(self) -> str:
        fused = self.fused
        saved = sum(r.cost.bytes_before - r.cost.bytes_after for r in fused)
        graphs = f"{self.graphs} {'graph' if self.graphs == 1 else 'graphs'}"
        lines = [
            f"{len(fused)} of {len(self.regions)} regions fused, in {graphs}; a forward pass moves "
            f"{saved / 1e6:.1f} MB less"
            if self.regions
            else f"nothing to fuse, in {graphs}"
        ]
        if not self.graphs:
            lines.append(
                "  if a model has run: TORCH_LOGS=graph_breaks says why torch captured none"
            )
        alone = f"{self.alone} {'has' if self.alone == 1 else 'have'} nothing beside"
        alone = f"; {alone} {'it' if self.alone == 1 else 'them'}" if self.alone else ""
        if self.fusible_ops or self.alone:
            lines.append(f"  {self.fused_ops} of {self.fusible_ops} ops fused{alone}")
        lines += [f"  {what}: {count}" for what, count in self.changed.items() if count]
        for region in fused:
            before, after = region.cost.bytes_before / 1e6, region.cost.bytes_after / 1e6
            lines.append(
                f"  {' '.join(region.ops)}: {region.shape}, {before:.2f} -> {after:.2f} MB ({region.package})"
            )
        for region in self.regions:
            if region.reason:
                lines.append(
                    f"  not fused: {' '.join(region.ops)}: {region.shape}: {region.reason}"
                )
        if self.left:
            lines.append("  as before:")
            for (name, reason), count in self.left.most_common():
                lines.append(f"    {name} x {count}: {reason}")
        if fused and self.folders:
            places = " and ".join(f"{folder}/specs" for folder in dict.fromkeys(self.folders))
            what = "NAME" if self.folders == [default_folder()] else "FILE"
            lines.append(
                f"  specs: {places}; `fusegen show {what}` prints formulas and derivatives"
            )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the same, with the graphs drawn."""
        from fusegen.models.notebook import report_as_html

        return report_as_html(self)


def _count(region: FusedRegion) -> int:
    return sum(op not in ("cast", "detach") for op in region.ops)
