"""The back end of torch.compile: fuses what it can of a captured graph and leaves the rest as it was."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import fx

from fusegen.base.errors import UserError
from fusegen.models.background import Build, start_build
from fusegen.models.channels_last import convert_by_kernel
from fusegen.models.checkpoints import write_checkpoints
from fusegen.models.effects import changed_places
from fusegen.models.forward_alone import forward_alone, runs_without_gradients
from fusegen.models.fusion_report import FusedRegion, Report
from fusegen.models.graph_units import units_of
from fusegen.models.module_state import TensorState
from fusegen.models.noted import note
from fusegen.models.packages import (
    is_built,
    is_there,
    load_packages,
    packages_of,
)
from fusegen.models.plan import Plan, plan_of
from fusegen.models.put_back import put_back
from fusegen.models.regions import Region
from fusegen.models.shared_memory import as_captured, places_to_compare
from fusegen.models.spec_text import PackageSpec, RegionSpec
from fusegen.models.switching import Switching
from fusegen.toolchain.model_cache import default_folder

__all__ = ["FusegenBackend", "fusegen", "report_of_backend"]

#: What `torch.compile(..., options=...)` may give.
OPTIONS = ("folder", "order", "everything", "rest", "background")
#: Why a region is not fused whose package is being built.
BUILDING = "runs as eager until the call after its package is built"

_REPORT = Report()
#: The packages of which it was said that they stay eager.
_WARNED: set[str] = set()


@dataclass
class FusegenBackend:
    """A back end for torch.compile.

    Args:
        folder: where packages are kept; by default `FUSEGEN_MODELS`, or ~/.cache/fusegen/models.
        order: how many derivatives the packages have: 1, or 2 and 3 for double backward. None is 1, and 0 in
            graphs that run without gradients, unless packages with a derivative are there.
        everything: fuse what the estimate says is slower, too.
        rest: what runs the other ops: "eager" or "inductor".
        background: whether graphs run as eager while their packages are built.
        build: whether to build what the folder lacks; otherwise no compiler is needed.
        report: what was fused and what was not.
        changed: keeps the tensors that graphs change, while a model runs on example inputs.
    """

    folder: Path = field(default_factory=default_folder)
    order: int | None = None
    everything: bool = False
    rest: str = "eager"
    background: bool = False
    build: bool = True
    report: Report = field(default_factory=Report)
    changed: TensorState | None = None

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UserError: if one is not valid.
        """
        if self.rest not in ("eager", "inductor"):
            raise UserError(f"rest is 'eager' or 'inductor', not {self.rest!r}")
        if self.order not in (None, 1, 2, 3):
            raise UserError(f"order is 1, 2 or 3, not {self.order!r}")
        if not isinstance(self.background, bool):
            raise UserError(f"background is True or False, not {self.background!r}")
        if self.background and self.rest != "eager":
            raise UserError(
                "background needs rest='eager': Inductor would compile the rest when the packages are there, "
                "which is what a build in the background is to avoid"
            )

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """Return a captured graph with its regions fused."""
        if self.changed is not None:
            self.changed.keep(inputs[place] for place in changed_places(module.graph))
        places = places_to_compare(module.graph, inputs)
        planned = self._planned(module, inputs)
        specs = [spec for _, spec in planned.regions]
        if self.folder not in self.report.folders:
            self.report.folders.append(self.folder)
        if self.background and self._must_wait(specs):
            later = self._later(planned)
            return as_captured(later, planned.module.forward, places, inputs)
        packages, refused = packages_of(specs, self.folder, build=self.build)
        for region, spec in planned.regions:
            note(self.report, region, refused.get(spec.name, ""), spec)
        result = _fused(planned, packages, checks=self.rest == "eager")
        if places:
            module.recompile()
        if self.rest == "inductor":
            from torch._inductor.compile_fx import compile_fx

            compiled: Callable[..., Any] = compile_fx(result, list(inputs))  # type: ignore[assignment]
            return as_captured(compiled, module.forward, places, inputs)
        return as_captured(result.forward, module.forward, places, inputs)

    def _planned(self, module: fx.GraphModule, inputs: Sequence[Any]) -> _Planned:
        """Return what is fused of a graph and of those of its checkpoints, which Inductor reads itself."""
        bodies = write_checkpoints(module.graph, inputs) if self.rest == "eager" else {}
        inside = {name: self._planned(body, given) for name, (body, given) in bodies.items()}
        order = self.order or 1
        plan = plan_of(module.graph, inputs, order, self.report, everything=self.everything)
        if self.order is None and runs_without_gradients(module.graph):
            plan = replace(plan, specs=[(r, self._least(spec)) for r, spec in plan.specs])
        named = [(region, spec.name) for region, spec in plan.specs]
        self.report.units.append(units_of(module.graph, named))
        return _Planned(module, plan, inside)

    def _least(self, spec: RegionSpec) -> RegionSpec:
        """Return a spec without derivatives, unless the package with them is there."""
        there = is_built if self.build else is_there
        return spec if there(spec, self.folder) else forward_alone(spec)

    def _must_wait(self, specs: Sequence[PackageSpec]) -> bool:
        """Return whether packages are to be built, by a process that knows all ops of the specs."""
        if not self.build or all(is_built(spec, self.folder) for spec in specs):
            return False
        from fusegen.toolchain.render_pool import has_own_declarations

        return not has_own_declarations()

    def _later(self, planned: _Planned) -> Callable[..., Any]:
        """Return a graph that runs as eager until its packages are built."""
        noted = [note(self.report, region, BUILDING, spec) for region, spec in planned.regions]
        for module in planned.modules:
            module.recompile()

        def switched(build: Build) -> Callable[..., Any]:
            packages, refused = load_packages(build.specs, self.folder, build.refused)
            self._report(noted, refused)
            return _fused(planned, packages).forward

        build = start_build([spec for _, spec in planned.regions], self.folder)
        return Switching(planned.module.forward, build, switched).call

    def _report(self, noted: Sequence[FusedRegion], refused: Mapping[str, str]) -> None:
        """Say in the report what became of regions; warn of what stays eager, since nobody has seen that."""
        for region in noted:
            self.report.settle(region, refused.get(region.package, ""))
        for name, reason in refused.items():
            if name not in _WARNED:
                _WARNED.add(name)
                warnings.warn(f"{name} cannot be built; it stays eager: {reason}", stacklevel=4)


@dataclass(frozen=True)
class _Planned:
    """A captured graph, what of it is fused, and the same of the graphs of its checkpoints by their names."""

    module: fx.GraphModule
    plan: Plan
    inside: Mapping[str, _Planned]

    @property
    def regions(self) -> list[tuple[Region, RegionSpec]]:
        """The regions of all these graphs, each with its spec."""
        return [*self.plan.specs, *(pair for one in self.inside.values() for pair in one.regions)]

    @property
    def modules(self) -> list[fx.GraphModule]:
        """All these graphs."""
        return [self.module, *(module for one in self.inside.values() for module in one.modules)]


def _fused(
    planned: _Planned, packages: Mapping[str, ModuleType], *, checks: bool = True
) -> fx.GraphModule:
    """Return a graph with the regions fused that have a package; a given one may still be running."""
    plan, result = planned.plan, planned.module
    fused = [(r, s, packages[s.name].apply) for r, s in plan.specs if s.name in packages]
    if fused or planned.inside:
        result = put_back(result, fused, plan.effects, checks=checks)
        convert_by_kernel(result.graph)
    for name, inside in planned.inside.items():
        setattr(result, name, _fused(inside, packages))
    result.recompile()
    return result


def fusegen(
    module: fx.GraphModule, inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Return a captured graph with its regions fused: `torch.compile(model, backend="fusegen")`.

    Args:
        module: the graph that torch.compile captured.
        inputs: example inputs.
        options: `folder`, `order`, `everything`, `rest` and `background` of `FusegenBackend`.

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
