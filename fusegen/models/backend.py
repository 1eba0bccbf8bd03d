"""The back end of torch.compile: fuses what it can of a captured graph and leaves the rest as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import fx

from fusegen.base.errors import UserError
from fusegen.models.fusion_report import Report
from fusegen.models.packages import default_folder, packages_of
from fusegen.models.plan import note, plan_of
from fusegen.models.put_back import put_back

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
        plan = plan_of(module.graph, inputs, self.order, self.report, everything=self.everything)
        packages, refused = packages_of([s for _, s in plan.specs], self.folder, build=self.build)
        fused = []
        for region, spec in plan.specs:
            reason = refused.get(spec.name, "")
            note(self.report, region, reason, spec)
            if not reason:
                fused.append((region, spec, packages[spec.name].apply))
        if fused:
            result = put_back(module, fused, plan.effects)
        else:
            result = module
            result.recompile()
        if self.rest == "inductor":
            from torch._inductor.compile_fx import compile_fx

            compiled: Callable[..., Any] = compile_fx(result, list(inputs))  # type: ignore[assignment]
            return compiled
        return result.forward


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
