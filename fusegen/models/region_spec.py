"""A region -> the text of a spec, and how the graph calls the package that is built from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import fx

from fusegen.models.activations import activations, dependents, shape_of
from fusegen.models.arguments import Argument, UnfitError, tensor_of
from fusegen.models.calls import Call
from fusegen.models.declared import dims_text, kind_text, outputs_text, stays_float32
from fusegen.models.detached import with_gradients
from fusegen.models.effects import Effects
from fusegen.models.functions import PARTS
from fusegen.models.gradients import gets_gradient
from fusegen.models.naming import Naming
from fusegen.models.operands import Held
from fusegen.models.region_formula import FormulaWriter, as_detached
from fusegen.models.regions import Region
from fusegen.models.shapes import same
from fusegen.models.spec_text import (
    RegionSpec,
    Step,
    package_name,
    spec_text,
    yaml_text,
)

__all__ = ["spec_of"]


def spec_of(
    region: Region,
    order: int,
    effects: Effects,
    naming: Callable[[], Naming] = Naming,
    again: Mapping[fx.Node, Mapping[fx.Node, Call]] = MappingProxyType({}),
) -> RegionSpec:
    """Return a region as a spec.

    Args:
        region: the region.
        order: how many derivatives its package has.
        effects: what may not be moved in the graph.
        naming: makes what chooses the spec's names.
        again: tensors that it reads and computes again, each with the calls that compute it
            (`computed_again.py`).

    Raises:
        UnfitError: if no spec says what it computes.
    """
    reasons = []
    for x in activations(region):
        try:
            return _Writer(region, x, order, effects, naming(), again).write()
        except UnfitError as error:
            reasons.append(str(error))
    raise UnfitError(reasons[0] if reasons else "none of its inputs has the shape of its result")


class _Writer(FormulaWriter):
    """Writes the steps of a region one after the other."""

    def __init__(
        self,
        region: Region,
        x: fx.Node,
        order: int,
        effects: Effects,
        naming: Naming,
        again: Mapping[fx.Node, Mapping[fx.Node, Call]],
    ) -> None:
        super().__init__(region, x, order, effects, naming, again)
        self._running = dependents(region, [x])
        outputs = region.outputs
        live = [n for n in outputs if _may_get_gradient(n, region, effects)] if order else outputs
        #: The results that get a gradient; all of them if none does.
        self._live = live or outputs
        if x not in with_gradients(region.calls, self._live):
            raise UnfitError("no gradient goes back to the tensor that the others depend on")
        self._steps: list[Step] = []

    def write(self) -> RegionSpec:
        """Return the spec."""
        outputs = self._region.outputs
        # No step goes on from a loss or a sum of all elements, so it comes last.
        calls = sorted(self._region.calls.items(), key=lambda item: item[1].ends)
        for node in outputs:
            if node not in self._running:
                raise UnfitError("a result does not depend on the tensor that the others depend on")
        if self._x in self._again:
            self._compute_again()
        running = [(node, call) for node, call in calls if node in self._running]
        for node, call in running:
            if not call.ends:
                self._step(node, call)
        words = self._detached()
        for node, call in running:
            if call.ends:
                self._step(node, call)
        if self._current is not None and self._current not in outputs:
            self._steps.append(Step("expr", {"formula": f'"{self._words[outputs[-1]]}"'}))
        words = {n: words.get(n) or self._words[n] for n in outputs}
        named = outputs_text(words, self._region, self._dtype)
        training = any(call.training for call in self._region.calls.values())
        computed = {**self._region.calls, **self._inlined}
        read = with_gradients(computed, self._live) if self._order else ()
        listed = any(held.dims for held in self._operands.values())
        text = spec_text(
            order=self._order,
            dtype=self._dtype,
            dims=len(self._region.shape) if self._is_image or listed else 0,
            training=training,
            operands={
                name: kind_text(held, self._region, detached=bool(read) and held.node not in read)
                for name, held in self._operands.items()
                if not held.of_step
            },
            outputs=list(named.values()),
            steps=self._naming.tidied(self._steps, [words[node] for node in named]),
        )
        ops = [call.name for call in self._region.calls.values() if call.op]
        halved = any(call.halves for call in self._region.calls.values())
        return RegionSpec(
            package_name(ops, text),
            text,
            self._x,
            self._operands,
            outputs,
            self._dtype,
            training,
            frozenset(self._inlined),
            not (halved or same(shape_of(self._x), self._region.shape)),
        )

    def _compute_again(self) -> None:
        """Let the steps begin with the activation's value, computed again."""
        formula = self._value(self._x)
        label = self._naming.step(self._x, self._again[self._x][self._x])
        self._steps.append(Step("expr", {"formula": f'"{formula}"'}, label))
        self._words[self._x] = label

    def _detached(self) -> dict[fx.Node, str]:
        """Detach the results that get no gradient; return their names."""
        found: dict[fx.Node, str] = {}
        for node in self._region.outputs:
            call = self._region.calls[node]
            if node not in self._live and not (call.ends or (call.op and call.op.indexes)):
                word = self._words[node]
                found[node] = self._naming.detached(word)
                self._steps.append(Step("expr", {"formula": f'"detach({word})"'}, found[node]))
                self._current = None
        return found

    def _step(self, node: fx.Node, call: Call) -> None:
        if call.part is not None:
            self._part_of(node, call)
            return
        label = self._naming.step(node, call)
        if call.op is None:
            self._cast(node, call, label)
            return
        if call.ends:
            self._ending(call, label, still=node not in self._live)
        elif call.is_step:
            self._kept(call, label)
        else:
            formula = self._formula(call)
            current = self._current
            assert current is not None
            if self._reduces and not call.dims and not self._is_whole(current):
                self._go_on_from_whole(call)
                formula = self._formula(call)
            apart = self._expands or (self._reduces and not call.dims)
            if apart and not self._is_whole(node):
                raise UnfitError("a value of rows is computed with what varies along part of them")
            given = {"formula": f'"{formula}"'}
            if self._reduces and self._is_image:
                given["dim"] = dims_text(self._region)
            self._steps.append(Step("expr", given, label))
        self._words[node] = label
        self._current = node

    def _part_of(self, node: fx.Node, call: Call) -> None:
        """Take the chain's start apart at its first part. What is added to it has all parts, too."""
        assert call.part is not None
        if node in self._words:
            return
        if call.x is not self._current:
            raise UnfitError("parts of another tensor than the others")
        parts = [(n, c.part.place) for n, c in self._region.calls.items() if c.part is not None]
        for term in call.operands.values():
            self._steps.append(Step("add", {"other": self._term(term)}))
        names = ["_"] * call.part.among
        for other, place in parts:
            if names[place] == "_":
                names[place] = self._naming.part(other, place)
            self._words[other] = names[place]
        given = {"formula": f'"{self._words[node]}"', "parts": f"[{', '.join(names)}]"}
        if call.part.dim != -1:
            given["dim"] = str(call.part.dim)
        self._steps.append(Step("expr", given))
        self._current = node

    def _term(self, value: Argument) -> str:
        """Return a tensor that has all parts as an operand: as large as x, or a row of it."""
        tensor = tensor_of(value)
        assert isinstance(value, fx.Node) and tensor is not None
        if same(shape_of(value), shape_of(self._x)):
            return self._declared(Held(value, "full", "as it is"))
        if self._is_image:
            raise UnfitError("a row is added before the parts of an image are taken")
        return self._declared(Held(value, "col", "flat"))

    def _cast(self, node: fx.Node, call: Call, label: str) -> None:
        """Take over the value of what is cast; each output needs a step of its own."""
        assert isinstance(call.x, fx.Node)
        outputs = self._region.outputs
        named = {self._words.get(n) for n in outputs} | {None}
        if node in outputs and (call.x in outputs or self._words.get(call.x) in named):
            formula = as_detached(self._value(call.x), call)
            self._steps.append(Step("expr", {"formula": f'"{formula}"'}, label))
            self._words[node] = label
            self._current = node
        else:
            self._words[node] = as_detached(self._value(call.x, by_name=True), call)
            if self._current is call.x and not call.detached:
                self._current = node

    def _is_whole(self, node: fx.Node) -> bool:
        return same(shape_of(node), self._region.shape)

    def _go_on_from_whole(self, call: Call) -> None:
        """Let the steps go on from a value of all elements: no formula reduces one and broadcasts another."""
        whole = [n for n in call.inputs if n in self._running and self._is_whole(n)]
        if not whole:
            raise UnfitError("what is reduced beside a reduced value alone")
        self._steps.append(Step("expr", {"formula": f'"{self._value(whole[0])}"'}))
        self._current = whole[0]

    def _called_on(self, call: Call) -> dict[str, str]:
        """Let the steps go on from what a step of its own is called on; return the step's attributes."""
        assert isinstance(call.x, fx.Node)
        if call.x not in self._running:
            raise UnfitError(f"{call.name} of another tensor than the others")
        if call.x is not self._current:
            self._steps.append(Step("expr", {"formula": f'"{self._value(call.x)}"'}))
            self._current = call.x
        return {k: yaml_text(v) for k, v in call.attributes.items()}

    def _kept(self, call: Call, label: str) -> None:
        """Write a step that `Module` would keep as a submodule; its tensors are arguments of `apply`."""
        assert call.op is not None
        given = self._called_on(call)
        if "formula" in call.attributes:
            parts = ", ".join(PARTS[: int(call.attributes["parts"])])
            given |= {"formula": f'"{call.attributes["formula"]}"', "parts": f"[{parts}]"}
            self._steps.append(Step("expr", given, label))
            return
        if "keepdim" in call.op.attributes:
            given |= {"dim": dims_text(self._region), "keepdim": "true"}
        if call.features:
            given["features"] = str(call.features)
        if call.op.submodule and call.op.submodule.flag:
            given["affine"] = "true" if call.operands else "false"
        if call.condition is not None:
            assert isinstance(call.condition, fx.Node)
            given |= dict.fromkeys(call.op.conditions, self._operand(call.condition))
        for name, value in call.operands.items():
            if not isinstance(value, fx.Node):
                raise UnfitError(f"{name} of {call.name} is a number")
            self._operands[f"{label}_{name}"] = Held(
                value, "channel", "flat", of_step=True, float32=stays_float32(value, self._dtype)
            )
        if any(self._operands[f"{label}_{name}"].float32 for name in call.operands):
            given["dtype"] = "float32"
        self._steps.append(Step(call.name, given, label))

    def _ending(self, call: Call, label: str, *, still: bool) -> None:
        """Write a loss, or the sum or mean of all elements; detach what it is of if it gets no gradient.

        Its operands are named: values of the spec, or operands that it declares.
        """
        assert call.op is not None
        given = self._called_on(call)
        if still:
            self._steps.append(Step("expr", {"formula": '"detach(x)"'}))
        for name, value in call.operands.items():
            if name == call.op.classes and isinstance(value, fx.Node):
                given[name] = self._declared(Held(value, "{kind: row, dtype: int64}", "as it is"))
            elif name in call.op.of_channels:
                given[name] = self._channel(value)
            else:
                given[name] = self._value(value, by_name=True)
            if not given[name].isidentifier():
                raise UnfitError(f"{name} of {call.name} is computed in the kernel")
        self._steps.append(Step(call.name, given, label))


def _may_get_gradient(node: fx.Node, region: Region, effects: Effects) -> bool:
    """Return whether a region's result may get a gradient; of a loss with a target that is not looked at."""
    call = region.calls[node]
    if call.op is not None and call.op.indexes:
        return False
    return bool(call.ends and call.operands) or gets_gradient(node, region.calls, effects)
