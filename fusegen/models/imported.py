"""A model as specs that people own: one for each kind of region, with the model's names. Nothing is built."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from fusegen.base.errors import UserError
from fusegen.models.call_once import FunctionModel, call_once, copied
from fusegen.models.checkpoints import write_checkpoints
from fusegen.models.compiled import compiled
from fusegen.models.cost import Cost
from fusegen.models.fusion_report import Report
from fusegen.models.model_names import ModelNames, words
from fusegen.models.noted import note
from fusegen.models.plan import plan_of
from fusegen.models.readable_spec import readable_spec_of
from fusegen.models.regions import Region
from fusegen.spec.names import MAX_LENGTH

__all__ = ["ImportedSpec", "import_model"]

#: How many words of a region's contents are in the name of its file.
_WORDS = 4


@dataclass(frozen=True)
class ImportedSpec:
    """A spec that was written for regions of a model that are alike.

    Args:
        name: the package's name, which says where the region is and what is in it.
        text: the spec, with comments that say where its tensors come from.
        ops: the ops in it, in the graph's order.
        shape: the shape of its activation, as text.
        cost: what a forward pass of one region moves, before and after.
        places: the modules that have it; a region that is there twice is there twice.
    """

    name: str
    text: str
    ops: tuple[str, ...]
    shape: str
    cost: Cost
    places: tuple[str, ...]


def import_model(
    model: Callable[..., Any], inputs: inspect.BoundArguments, *, title: str, order: int = 1
) -> tuple[list[ImportedSpec], Report]:
    """Return a spec for each kind of region of a model, and what no spec computes, with the reason.

    Args:
        model: a model or a function of tensors.
        inputs: example inputs, bound to the parameters of the model.
        title: what the model is called, such as "model.py:Block".
        order: how many derivatives the specs have.

    Raises:
        UserError: if the model fails on the inputs, or torch captures nothing of it.
    """
    module = model if isinstance(model, nn.Module) else FunctionModel(model)
    args, keywords = copied((inputs.args, inputs.kwargs))
    given = inputs.signature.bind(*args, **keywords).arguments
    try:
        with torch.no_grad():
            again, named = copied((args, keywords))
            call_once(functools.partial(module, *again, **named), module, ())
    except Exception as error:  # whatever the model's own code raises
        shown = ", ".join(f"{name}: {_shown(value)}" for name, value in given.items())
        raise UserError(
            f"{title} fails on the inputs ({shown}): {type(error).__name__}: {error}"
        ) from error
    reader = _Reader(module, given, title, order)
    captured = compiled(module, reader)
    call_once(functools.partial(captured, *args, **keywords), module, ())
    if not reader.report.graphs:
        raise UserError(
            f"torch.compile captured nothing of {title}: it leaves out what torch.compiler.disable marks"
        )
    return list(reader.found.values()), reader.report


class _Reader:
    """A back end of torch.compile that writes specs and changes nothing."""

    def __init__(self, model: nn.Module, inputs: Mapping[str, Any], title: str, order: int) -> None:
        self._model, self._inputs, self._title, self._order = model, inputs, title, order
        self.found: dict[str, ImportedSpec] = {}
        self.report = Report()

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        before = module.forward
        self._read(module, inputs)
        return before

    def _read(self, module: fx.GraphModule, inputs: Sequence[Any]) -> None:
        """Write the specs of a graph, and of those of its checkpoints."""
        for body, given in write_checkpoints(module.graph, inputs).values():
            self._read(body, given)
        names = ModelNames(module.graph, inputs, self._inputs, self._model)
        plan = plan_of(module.graph, inputs, self._order, self.report, everything=True)
        for region, spec in plan.specs:
            place = names.place([*region.calls])
            same = self.found.get(spec.name)
            if same is not None:
                note(self.report, region, "", spec)
                self.found[spec.name] = replace(same, places=(*same.places, place))
                continue
            contents = _contents(region, names)
            within = f"{place} of {self._title}" if place else self._title
            described = f"{', '.join(contents)} in {within}"
            try:
                text = readable_spec_of(region, self._order, plan.effects, names, described).text
            except UserError as error:  # no chain can be derived from it
                note(self.report, region, str(error), spec)
                continue
            noted = note(self.report, region, "", spec)
            self.found[spec.name] = ImportedSpec(
                self._name(place, contents), text, noted.ops, noted.shape, noted.cost, (place,)
            )

    def _name(self, place: str, contents: Sequence[str]) -> str:
        """Return a name of a package that no other region has."""
        kind = (
            type(self._model).__name__ if not isinstance(self._model, FunctionModel) else "function"
        )
        name = words(kind, place, *contents[:_WORDS])[: MAX_LENGTH - 4].strip("_")
        taken = {spec.name for spec in self.found.values()}
        number = 1
        while (chosen := name if number == 1 else f"{name}_{number}") in taken:
            number += 1
        return chosen


def _contents(region: Region, names: ModelNames) -> list[str]:
    """Return what a region has in words: submodules, variables, ops."""
    place = names.place([*region.calls])
    found = []
    for node, call in region.calls.items():
        inner = names.owner(node).removeprefix(place).strip(".")
        if inner:
            found.append(words(inner.partition(".")[0]))
        elif names.leaf(node) or call.op is not None:
            found.append(names.step(node, call))
    return list(dict.fromkeys(found))


def _shown(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    return (
        f"{'x'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).removeprefix('torch.')}"
    )
