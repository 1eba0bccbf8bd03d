"""A region -> the text of a spec, and how the graph calls the package that is built from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import UnfitError, tensor_of
from fusegen.models.calls import Call, Comparison
from fusegen.models.effects import Effects
from fusegen.models.naming import Naming
from fusegen.models.operands import Held, how_held, of_channels
from fusegen.models.region_dtype import dtype_of, has_channels
from fusegen.models.regions import Region
from fusegen.models.shapes import Shape, same
from fusegen.models.small_tensors import inlined
from fusegen.models.spec_text import RegionSpec, Step, package_name, spec_text, yaml_text
from fusegen.program import Kind

__all__ = ["activations", "dependents", "spec_of"]

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


def activations(region: Region) -> list[fx.Node]:
    """Return the inputs that may be the activation, that on which the most nodes depend first.

    Where none has its shape, as in an outer product, one is broadcast with the others. A gate of two halves
    comes first in a chain, which then is called on the tensor that has them.
    """
    halved = [call.x for call in region.calls.values() if call.halves]
    if halved:
        return [x for x in dict.fromkeys(halved) if isinstance(x, fx.Node)]
    numbers = [n for n in region.inputs if _is_floating(n)]
    whole = [n for n in numbers if same(_shape(n), region.shape)]
    found = whole if whole or isinstance(region.rows, str) else numbers
    return sorted(found, key=lambda n: -len(dependents(region, [n])))


def _is_floating(node: fx.Node) -> bool:
    tensor = tensor_of(node)
    return tensor is not None and tensor.is_floating_point()


def dependents(region: Region, roots: Iterable[fx.Node]) -> set[fx.Node]:
    """Return some nodes and those of a region that depend on them."""
    found = set(roots)
    for node, call in region.calls.items():
        if any(i in found for i in call.inputs):
            found.add(node)
    return found


def _shape(node: fx.Node) -> Shape:
    tensor = tensor_of(node)
    return tuple(tensor.shape) if tensor is not None else ()


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
        self._is_image = len(region.shape) > 2 and self._needs_dims()
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
        # No step goes on from a loss, and it drops dims, so it comes last.
        for node, call in sorted(self._region.calls.items(), key=lambda item: item[1].is_loss):
            if node in self._running:
                self._step(node, call)
            elif node in outputs:
                raise UnfitError("a result does not depend on the tensor that the others depend on")
        if self._current not in outputs:
            self._steps.append(Step("expr", {"formula": f'"{self._words[outputs[-1]]}"'}))
        text = spec_text(
            order=self._order,
            dtype=self._dtype,
            dims=len(self._region.shape) if self._is_image else 0,
            operands={n: self._kind(h) for n, h in self._operands.items() if not h.of_step},
            outputs=[self._output(node) for node in outputs],
            steps=self._naming.tidied(self._steps, [self._words[node] for node in outputs]),
        )
        words = [call.name for call in self._region.calls.values() if call.op]
        halved = any(call.halves for call in self._region.calls.values())
        return RegionSpec(
            package_name(words, text),
            text,
            self._x,
            self._operands,
            outputs,
            self._dtype,
            any(call.training for call in self._region.calls.values()),
            frozenset(self._inlined),
            not (halved or same(_shape(self._x), self._region.shape)),
        )

    def _output(self, node: fx.Node) -> str:
        """Return how an output is listed: a loss keeps its float32 beside logits of 16 bits."""
        tensor = tensor_of(node)
        wide = self._region.calls[node].is_loss and self._dtype in (torch.bfloat16, torch.float16)
        if wide and tensor is not None and tensor.dtype is torch.float32:
            return f"{{name: {self._words[node]}, dtype: float32}}"
        return self._words[node]

    def _kind(self, held: Held) -> str:
        """Return how an operand is declared.

        The tables of a rotation, and targets of a loss, get no gradient if they need none: a kernel would
        write as much for each as for x. Other operands get one, or training and evaluation would have two
        packages.
        """
        calls = self._region.calls.values()
        turns = any(call.name == "rotate_half" or call.is_loss for call in calls)
        tensor = tensor_of(held.node)
        if held.float32:
            return f"{{kind: {held.kind}, dtype: float32}}"
        if turns and held.kind == "full" and tensor is not None and not tensor.requires_grad:
            return "{kind: full, gradient: false}"
        return held.kind

    def _needs_dims(self) -> bool:
        """Return whether the chain's rows or operands need to know the dims of the activation."""
        rows = self._region.rows
        calls = self._region.calls.values()
        if any(has_channels(c) or (c.halves and c.attributes.get("dim", -1) != -1) for c in calls):
            return True
        if isinstance(rows, str) or (rows is not None and rows != (-1,)):
            return True
        if rows == (-1,):
            return False
        held = (how_held(n, self._region, is_image=True) for n in self._region.inputs)
        return any(h.kind == "channel" for h in held)

    def _stays(self, node: fx.Node) -> bool:
        """Return whether a tensor is of float32 beside others of 16 bits."""
        tensor = tensor_of(node)
        return (
            tensor is not None
            and tensor.dtype is torch.float32
            and self._dtype in (torch.bfloat16, torch.float16)
        )

    def _step(self, node: fx.Node, call: Call) -> None:
        label = self._naming.step(node, call)
        if call.op is None:
            self._cast(node, call, label)
            return
        if call.is_step:
            self._kept(call, label)
        else:
            self._reduces = self._expands = False
            formula = self._formula(call)
            apart = self._expands or (self._reduces and not call.dims)
            if apart and not same(_shape(node), self._region.shape):
                raise UnfitError("a value of rows is computed with what varies along part of them")
            given = {"formula": f'"{formula}"'}
            if self._reduces and self._is_image:
                given["dim"] = _dims(self._region)
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

    def _kept(self, call: Call, label: str) -> None:
        """Write a step that `Module` would keep as a submodule; its tensors are arguments of `apply`."""
        assert call.op is not None and isinstance(call.x, fx.Node)
        if call.x not in self._running:
            raise UnfitError(f"{call.name} of another tensor than the others")
        if call.x is not self._current:
            self._steps.append(Step("expr", {"formula": f'"{self._value(call.x)}"'}))
        given = {k: yaml_text(v) for k, v in call.attributes.items()}
        if call.is_loss:
            self._steps.append(Step(call.name, given | self._loss_operands(call), label))
            return
        if call.op.indexes:
            given |= {"dim": _dims(self._region), "keepdim": "true"}
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
                value, "channel", "flat", of_step=True, float32=self._stays(value)
            )
        if any(self._operands[f"{label}_{name}"].float32 for name in call.operands):
            given["dtype"] = "float32"
        self._steps.append(Step(call.name, given, label))

    def _loss_operands(self, call: Call) -> dict[str, str]:
        """Return the operands of a loss: names of values of the spec, or of operands that it declares."""
        found = {}
        for name, value in call.operands.items():
            if not isinstance(value, fx.Node):
                raise UnfitError(f"{name} of {call.name} is a number")
            assert call.op is not None
            if name == call.op.classes:
                found[name] = self._declared(Held(value, "{kind: row, dtype: int64}", "as it is"))
            elif call.op.operands[name] is Kind.CHANNEL:
                found[name] = self._channel(value)
            elif value is self._x or value in self._words:
                found[name] = "input" if value is self._x else self._words[value]
            elif value in self._region.calls or value in self._inlined:
                raise UnfitError(f"{name} of {call.name} is computed from other tensors")
            else:
                found[name] = self._operand(value)
        return found

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
        channels = has_channels(call)
        operands = {
            name: self._channel(value) if channels else self._value(value)
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
        self._expands |= value is self._x and not same(_shape(value), self._region.shape)
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
        self._expands |= held.adapted == "expanded"
        return self._declared(held)

    def _channel(self, value: fx.Node | float) -> str:
        """Return an operand with one number for each channel, of a norm that is written as a formula."""
        if not isinstance(value, fx.Node):
            raise UnfitError("a norm with a number in place of a tensor")
        return self._declared(of_channels(value, self._region))

    def _declared(self, held: Held) -> str:
        """Return the name of an operand that the spec declares."""
        held = replace(held, float32=self._stays(held.node))
        for name, known in self._operands.items():
            if known == held:
                return name
        name = self._naming.operand(held)
        self._operands[name] = held
        return name


def _dims(region: Region) -> str:
    dims = region.rows
    assert isinstance(dims, tuple)
    return str(dims[0]) if len(dims) == 1 else f"[{', '.join(map(str, dims))}]"
