"""Values of a region as formulas of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import fx

from fusegen.models import patterns
from fusegen.models.activations import shape_of
from fusegen.models.arguments import UnfitError
from fusegen.models.calls import Call, Comparison
from fusegen.models.declared import needs_dims, stays_float32
from fusegen.models.effects import Effects
from fusegen.models.naming import Naming
from fusegen.models.operands import Held, has_channels, how_held, of_channels
from fusegen.models.region_dtype import dtype_of
from fusegen.models.regions import Region
from fusegen.models.shapes import same
from fusegen.models.small_tensors import inlined

__all__ = ["FormulaWriter", "as_detached"]

#: The longest part of a formula, in characters; a formula may have 10,000.
_LONGEST = 4000


class FormulaWriter:
    """Writes values of a region as formulas, and declares the operands that these name.

    Args:
        region: the region.
        x: the activation.
        order: how many derivatives its package has.
        effects: what may not be moved in the graph.
        naming: chooses the spec's names.
        again: tensors that it reads and computes again, each with the calls that compute it.
    """

    def __init__(
        self,
        region: Region,
        x: fx.Node,
        order: int,
        effects: Effects,
        naming: Naming,
        again: Mapping[fx.Node, Mapping[fx.Node, Call]],
    ) -> None:
        self._region, self._x, self._order, self._naming = region, x, order, naming
        self._again = again
        #: What is computed for the sake of these.
        self._before = {node: call for calls in again.values() for node, call in calls.items()}
        self._reduces = self._expands = False
        self._operands: dict[str, Held] = {}
        self._words: dict[fx.Node, str] = {}
        self._current: fx.Node | None = x
        matrix = len(region.shape) == 2 and region.rows == (-2,)
        self._is_image = matrix or (len(region.shape) > 2 and needs_dims(region))
        found = inlined(region, x, effects, is_image=self._is_image)
        choices = [
            (s, dtype)
            for s in (found, {})
            if (dtype := dtype_of(region, s, is_image=self._is_image)) is not None
        ]
        if not choices:
            raise UnfitError("float64 beside another dtype, where kernels compute in one of them")
        # Nothing of the activation's size is converted for the sake of a small tensor.
        self._inlined, self._dtype = min(choices, key=lambda choice: choice[1].itemsize)

    def _formula(self, call: Call) -> str:
        """Return what a node of the region computes as a formula; note whether that reduces or broadcasts."""
        self._reduces = self._expands = False
        return self._part(call)

    def _part(self, call: Call) -> str:
        """Return what a call computes as a formula, or as a part of one."""
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
        if value in self._again and value not in self._words:
            return self._shown(value, "x" if value is self._x else self._operand(value))
        if value is self._current and not by_name:
            return "x"
        if value in self._words:
            return self._words[value]
        if value is self._x:
            return "input"
        computed = (self._region.calls, self._inlined, self._before)
        call = next((calls[value] for calls in computed if value in calls), None)
        if call is not None:
            if call.op is None:
                return as_detached(self._value(call.x), call)
            if call.is_step or not call.keepdim:
                raise UnfitError(f"{call.name} of another tensor than the others")
            formula = self._part(call)
            if len(formula) > _LONGEST:  # what is used twice is written twice
                raise UnfitError("what is computed of small tensors is too long for a formula")
            is_call = call.name not in patterns.INFIX and call.name != "batch_norm"
            return formula if is_call else f"({formula})"
        return self._operand(value)

    def _shown(self, node: fx.Node, held: str) -> str:
        """Return a tensor that is computed again, with the gradient of the tensor itself."""
        return f"straight_through({self._part(self._again[node][node])}, {held})"

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


def as_detached(formula: str, call: Call) -> str:
    """Return the value of what has no op as a formula."""
    return f"detach({formula})" if call.detached else formula
