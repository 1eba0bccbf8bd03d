"""A region -> the text of a spec, and how the graph calls the package that is built from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import fx

from fusegen.models import patterns
from fusegen.models.activations import activations, dependents, shape_of
from fusegen.models.arguments import UnfitError
from fusegen.models.calls import Call, Comparison
from fusegen.models.declared import dims_text, kind_text, needs_dims, outputs_text, stays_float32
from fusegen.models.effects import Effects
from fusegen.models.naming import Naming
from fusegen.models.operands import Held, how_held, of_channels
from fusegen.models.region_dtype import dtype_of, has_channels
from fusegen.models.regions import Region
from fusegen.models.shapes import same
from fusegen.models.small_tensors import inlined
from fusegen.models.spec_text import RegionSpec, Step, package_name, spec_text, yaml_text
from fusegen.program import Kind

__all__ = ["spec_of"]

#: The longest part of a formula, in characters; a formula may have 10,000.
_LONGEST = 4000


def spec_of(
    region: Region, order: int, effects: Effects, naming: Callable[[], Naming] = Naming
) -> RegionSpec:
    """Return a region as a spec.

    Args:
        region: the region.
        order: how many derivatives its package has.
        effects: what may not be moved in the graph.
        naming: makes what chooses the spec's names.

    Raises:
        UnfitError: if no spec says what it computes.
    """
    reasons = []
    for x in activations(region):
        try:
            return _Writer(region, x, order, effects, naming()).write()
        except UnfitError as error:
            reasons.append(str(error))
    raise UnfitError(reasons[0] if reasons else "none of its inputs has the shape of its result")


class _Writer:
    """Writes the steps of a region one after the other."""

    def __init__(
        self, region: Region, x: fx.Node, order: int, effects: Effects, naming: Naming
    ) -> None:
        self._region, self._x, self._order, self._naming = region, x, order, naming
        self._reduces = self._expands = False
        self._running = dependents(region, [x])
        self._operands: dict[str, Held] = {}
        self._words: dict[fx.Node, str] = {}
        self._current = x
        self._steps: list[Step] = []
        self._is_image = len(region.shape) > 2 and needs_dims(region)
        found = inlined(region, x, effects, is_image=self._is_image)
        choices = [
            (s, dtype)
            for s in (found, {})
            if (dtype := dtype_of(region, s, is_image=self._is_image)) is not None
        ]
        if not choices:
            raise UnfitError("float64 beside another dtype")
        # Nothing of the activation's size is converted for the sake of a small tensor.
        self._inlined, self._dtype = min(choices, key=lambda choice: choice[1].itemsize)

    def write(self) -> RegionSpec:
        """Return the spec."""
        outputs = self._region.outputs
        # No step goes on from a loss or a sum of all elements, so it comes last.
        for node, call in sorted(self._region.calls.items(), key=lambda item: item[1].ends):
            if node in self._running:
                self._step(node, call)
            elif node in outputs:
                raise UnfitError("a result does not depend on the tensor that the others depend on")
        if self._current not in outputs:
            self._steps.append(Step("expr", {"formula": f'"{self._words[outputs[-1]]}"'}))
        named = outputs_text({n: self._words[n] for n in outputs}, self._region, self._dtype)
        training = any(call.training for call in self._region.calls.values())
        listed = any(held.dims for held in self._operands.values())
        text = spec_text(
            order=self._order,
            dtype=self._dtype,
            dims=len(self._region.shape) if self._is_image or listed else 0,
            training=training,
            operands={
                n: kind_text(h, self._region) for n, h in self._operands.items() if not h.of_step
            },
            outputs=list(named.values()),
            steps=self._naming.tidied(self._steps, [self._words[node] for node in named]),
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

    def _step(self, node: fx.Node, call: Call) -> None:
        label = self._naming.step(node, call)
        if call.op is None:
            self._cast(node, call, label)
            return
        if call.ends:
            self._ending(call, label)
        elif call.is_step:
            self._kept(call, label)
        else:
            self._reduces = self._expands = False
            formula = self._formula(call)
            apart = self._expands or (self._reduces and not call.dims)
            if apart and not same(shape_of(node), self._region.shape):
                raise UnfitError("a value of rows is computed with what varies along part of them")
            given = {"formula": f'"{formula}"'}
            if self._reduces and self._is_image:
                given["dim"] = dims_text(self._region)
            self._steps.append(Step("expr", given, label))
        self._words[node] = label
        self._current = node

    def _cast(self, node: fx.Node, call: Call, label: str) -> None:
        """Take over the value of what is cast; an output needs a name of its own."""
        assert isinstance(call.x, fx.Node)
        if node in self._region.outputs:
            self._steps.append(Step("expr", {"formula": f'"{self._value(call.x)}"'}, label))
            self._words[node] = label
            self._current = node
        else:
            self._words[node] = self._value(call.x, by_name=True)
            if self._current is call.x:
                self._current = node

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
            given |= {"formula": f'"{call.attributes["formula"]}"', "halves": "[first, second]"}
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

    def _ending(self, call: Call, label: str) -> None:
        """Write a loss, or the sum or mean of all elements.

        Its operands are named: values of the spec, or operands that it declares.
        """
        assert call.op is not None
        given = self._called_on(call)
        for name, value in call.operands.items():
            if name == call.op.classes and isinstance(value, fx.Node):
                given[name] = self._declared(Held(value, "{kind: row, dtype: int64}", "as it is"))
            elif call.op.operands[name] is Kind.CHANNEL:
                given[name] = self._channel(value)
            else:
                given[name] = self._value(value, by_name=True)
            if not given[name].isidentifier():
                raise UnfitError(f"{name} of {call.name} is computed in the kernel")
        self._steps.append(Step(call.name, given, label))

    def _formula(self, call: Call) -> str:
        """Return what a call computes as a formula."""
        self._reduces |= bool(call.dims)
        x = self._value(call.x)
        if call.condition is not None:
            (other,) = map(self._value, call.operands.values())
            return f"where({self._condition(call.condition)}, {x}, {other})"
        if call.name == "batch_norm":
            operands = {name: self._channel(value) for name, value in call.operands.items()}
            eps = call.attributes.get("eps", 1e-5)
            scale = f"rsqrt({operands['running_var']} + {eps!r}) * {operands['weight']}"
            return f"({x} - {operands['running_mean']}) * ({scale}) + {operands['bias']}"
        channels, read = has_channels(call), self._table if call.name == "rope" else self._value
        operands = {
            name: self._channel(value) if channels else read(value)
            for name, value in call.operands.items()
        }
        sign = patterns.INFIX.get(call.name)
        if sign:
            (second,) = operands.values()
            alpha = call.attributes.get("alpha", 1)
            return f"{x} {sign} {second}" if alpha == 1 else f"{x} {sign} {alpha!r} * {second}"
        given = [x, *(f"{name}={value}" for name, value in operands.items())]
        given += [f"{name}={value!r}" for name, value in call.attributes.items()]
        return f"{call.name}({', '.join(given)})"

    def _condition(self, condition: Comparison | fx.Node) -> str:
        """Return what a choice goes by, as a formula."""
        if isinstance(condition, fx.Node):
            return self._operand(condition)
        return f"{self._value(condition.left)} {condition.sign} {self._value(condition.right)}"

    def _value(self, value: fx.Node | float, *, by_name: bool = False) -> str:
        """Return a value as a part of a formula."""
        if not isinstance(value, fx.Node):
            number = int(value) if value == int(value) and abs(value) < 1e9 else value
            return repr(number) if value >= 0 else f"({number!r})"
        # A broadcast activation is larger than the tensor that it is of.
        self._expands |= value is self._x and not same(shape_of(value), self._region.shape)
        if value is self._current and not by_name:
            return "x"
        if value is self._x:
            return "input"
        if value in self._words:
            return self._words[value]
        call = self._region.calls.get(value) or self._inlined.get(value)
        if call is not None:
            if call.op is None:
                return self._value(call.x)
            if call.is_step or not call.keepdim:
                raise UnfitError(f"{call.name} of another tensor than the others")
            formula = self._formula(call)
            if len(formula) > _LONGEST:  # what is used twice is written twice
                raise UnfitError("a value that does not depend on the activation is too long")
            is_call = call.name not in patterns.INFIX and call.name != "batch_norm"
            return formula if is_call else f"({formula})"
        return self._operand(value)

    def _operand(self, node: fx.Node) -> str:
        held = how_held(node, self._region, is_image=self._is_image)
        self._expands |= held.adapted == "expanded" or bool(held.dims)
        if held.dims and not self._order:
            held = replace(held, adapted="expanded", dims=())
        return self._declared(held)

    def _table(self, value: fx.Node | float) -> str:
        """Return an operand that is as wide as what `rope` turns."""
        assert isinstance(value, fx.Node)
        return self._declared(Held(value, "full", "as it is"))

    def _channel(self, value: fx.Node | float) -> str:
        """Return an operand with one number for each channel, of a norm that is written as a formula."""
        if not isinstance(value, fx.Node):
            raise UnfitError("a norm with a number in place of a tensor")
        return self._declared(of_channels(value, self._region))

    def _declared(self, held: Held) -> str:
        """Return the name of an operand that the spec declares."""
        held = replace(held, float32=stays_float32(held.node, self._dtype))
        for name, known in self._operands.items():
            if known == held:
                return name
        name = self._naming.operand(held)
        self._operands[name] = held
        return name
