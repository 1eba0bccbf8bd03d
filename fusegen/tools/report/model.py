"""What a report says of a model: its regions, and which of them are fused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from fusegen.models import FusegenBackend, Report
from fusegen.models.fusion_report import FusedRegion
from fusegen.models.graph_picture import MOST, picture
from fusegen.tools.against_eager.original import original_of, through
from fusegen.tools.against_eager.outcome import outcome

__all__ = ["ModelPart", "RegionRow", "part_of", "report_of"]


@dataclass(frozen=True)
class RegionRow:
    """Regions that are alike.

    Args:
        region: one of them.
        count: how many there are.
    """

    region: FusedRegion
    count: int

    @property
    def saved(self) -> int:
        """The bytes that a forward pass of all of them saves."""
        return self.count * (self.region.cost.bytes_before - self.region.cost.bytes_after)

    @property
    def left(self) -> float:
        """How much of the bytes of a forward pass is left, from 0 to 1."""
        return self.region.cost.bytes_after / max(self.region.cost.bytes_before, 1)


@dataclass(frozen=True)
class ModelPart:
    """A model in a report.

    Args:
        title: its text on the command line.
        summary: the first line of `fusegen.report`.
        ops: how many ops are fused of those that could be.
        fused: the regions that packages compute.
        unfused: the others, each with its reason.
        changed: what else was done to the graphs, and how often.
        left: the ops outside of regions: what each is, why it is left, and how often it occurs.
        specs: the spec of each package, and the folder of the packages.
        graphs: a picture of each graph, and how many of its units are not in it.
    """

    title: str
    summary: str
    ops: str
    fused: Sequence[RegionRow]
    unfused: Sequence[RegionRow]
    changed: Sequence[tuple[str, int]]
    left: Sequence[tuple[str, str, int]]
    specs: Sequence[tuple[Path, Path]]
    graphs: Sequence[tuple[Markup, int]]


def report_of(text: str, inputs: str | None, device: str | None, *, everything: bool) -> Report:
    """Fuse a model and run it forward and backward, in training; return what was fused.

    Args:
        text: the model, as the command line names it.
        inputs: the text of `--inputs`.
        device: where it runs.
        everything: fuse also what the estimate says is slower.

    Raises:
        UserError: if the text names no model, or the inputs don't fit.
    """
    original = original_of(text, inputs, device)
    backend = FusegenBackend(order=1, everything=everything)
    model = original.copy(original.dtype, train=True)
    outcome(through(model, backend), model, original.given(original.dtype))
    return backend.report


def part_of(title: str, report: Report) -> ModelPart:
    """Return what a report of a page says.

    Args:
        title: the model's title.
        report: what was fused.
    """
    rows = [RegionRow(region, n) for region, n in _counted(report.regions)]
    packages = dict.fromkeys(row.region.package for row in rows if not row.region.reason)
    places = [
        (folder / "specs" / f"{name}.yaml", folder / "generated")
        for name in packages
        for folder in dict.fromkeys(report.folders)
    ]
    places = [place for place in places if place[0].is_file()]
    chapters = {path.stem for path, _ in places}
    return ModelPart(
        title,
        str(report).splitlines()[0],
        f"{report.fused_ops} of {report.fusible_ops} ops with others beside them are fused",
        sorted((r for r in rows if not r.region.reason), key=lambda row: -row.saved),
        [r for r in rows if r.region.reason],
        [(what, count) for what, count in report.changed.items() if count],
        [(name, reason, count) for (name, reason), count in report.left.most_common()],
        places,
        [
            (picture(units, packages, chapters), max(len(units) - MOST, 0))
            for units in dict.fromkeys(report.units)
            if any(unit.kind in ("op", "region") for unit in units)
        ],
    )


def _counted(regions: Sequence[FusedRegion]) -> list[tuple[FusedRegion, int]]:
    """Return regions that differ, and how many there are of each."""
    return list(Counter(regions).items())
