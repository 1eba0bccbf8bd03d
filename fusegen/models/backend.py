"""The back end of torch.compile: fuses what it can of a captured graph and leaves the rest as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import fx

from fusegen.base.errors import UserError
from fusegen.models.arguments import UnfitError, name_of
from fusegen.models.cost import cost_of
from fusegen.models.effects import Effects, effects_of
from fusegen.models.fusion_report import FusedRegion, Report
from fusegen.models.out_of_place import leave_out_unread, write_out_of_place
from fusegen.models.packages import default_folder, packages_of
from fusegen.models.put_back import put_back
from fusegen.models.region_spec import RegionSpec, spec_of
from fusegen.models.regions import Region, find_regions
from fusegen.models.rotary import write_rotations

__all__ = ["FusegenBackend", "fusegen", "report_of_backend"]

#: What `torch.compile(..., options=...)` may give.
OPTIONS = ("folder", "order", "everything", "rest")

_REPORT = Report()


@dataclass
class FusegenBackend:
    """A back end for torch.compile.

    Args:
        folder: where packages are kept; by default `FUSEGEN_MODELS`, or ~/.cache/fusegen/models.
        order: how many derivatives the packages have: 1, or 2 and 3 for double backward.
        everything: fuse what the estimate says is slower, too.
        rest: what runs the other ops: "eager" or "inductor".
        build: whether to build what the folder lacks; otherwise no compiler is needed.
        report: what was fused and what was not.
    """

    folder: Path = field(default_factory=default_folder)
    order: int = 1
    everything: bool = False
    rest: str = "eager"
    build: bool = True
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UserError: if one is not valid.
        """
        if self.rest not in ("eager", "inductor"):
            raise UserError(f"rest is 'eager' or 'inductor', not {self.rest!r}")
        if self.order not in (1, 2, 3):
            raise UserError(f"order is 1, 2 or 3, not {self.order!r}")

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """Return a captured graph with its regions fused."""
        graph = module.graph
        leave_out_unread(graph)
        write_out_of_place(graph)
        write_rotations(graph, inputs)
        leave_out_unread(graph)
        effects = effects_of(graph, inputs)
        regions, left = find_regions(graph, effects)
        self.report.graphs += 1
        for node, reason in left.items():
            self.report.left[name_of(node), reason] += 1
        worth = [r for r in regions if self._is_worth(r)]
        specs = [(region, spec) for region in worth if (spec := self._spec(region, effects))]
        packages, refused = packages_of([s for _, s in specs], self.folder, build=self.build)
        fused = []
        for region, spec in specs:
            reason = refused.get(spec.name, "")
            self._note(region, reason, spec)
            if not reason:
                fused.append((region, spec, packages[spec.name].apply))
        result = put_back(module, fused, effects) if fused else module
        if self.rest == "inductor":
            from torch._inductor.compile_fx import compile_fx

            compiled: Callable[..., Any] = compile_fx(result, list(inputs))  # type: ignore[assignment]
            return compiled
        return result.forward

    def _is_worth(self, region: Region) -> bool:
        """Return whether a region is worth a package; note why not."""
        cost = cost_of(region)
        if cost.launches < 2:
            for node in region.calls:
                self.report.left[name_of(node), "nothing beside it to be fused with"] += 1
            return False
        if cost.seconds_saved <= 0 and not self.everything:
            reason = f"a call would cost more than it saves, by {-cost.seconds_saved * 1e6:.0f} us"
            self._note(region, reason)
            return False
        return True

    def _spec(self, region: Region, effects: Effects) -> RegionSpec | None:
        try:
            return spec_of(region, self.order, effects)
        except UnfitError as error:
            self._note(region, str(error))
            return None

    def _note(self, region: Region, reason: str, spec: RegionSpec | None = None) -> None:
        """Add a region to the report."""
        self.report.regions.append(
            FusedRegion(
                tuple(call.name for call in region.calls.values()),
                f"[{', '.join(map(str, region.shape))}]",
                cost_of(region),
                spec.name if spec else "",
                spec.text if spec else "",
                reason,
            )
        )


def fusegen(
    module: fx.GraphModule, inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Return a captured graph with its regions fused: `torch.compile(model, backend="fusegen")`.

    Args:
        module: the graph that torch.compile captured.
        inputs: example inputs.
        options: `folder`, `order`, `everything` and `rest` of `FusegenBackend`.

    Raises:
        UserError: if an option is unknown.
    """
    given = dict(options or {})
    for name in given:
        if name not in OPTIONS:
            raise UserError(
                f"options of the backend fusegen are {', '.join(OPTIONS)}, not {name!r}"
            )
    folder = given.pop("folder", None)
    made = FusegenBackend(Path(folder) if folder else default_folder(), report=_REPORT, **given)
    return made(module, inputs)


def report_of_backend() -> Report:
    """Return what `torch.compile(model, backend="fusegen")` fused in this process."""
    return _REPORT
