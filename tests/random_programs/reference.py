"""A spec's chain by torch's own functions, read from the YAML data: nothing of fusegen's IR takes part.

Of fusegen only an op's declared signature is used: the names of its operands and attributes, its defaults,
and the name of the torch function that it equals.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fusegen.ops import Op, find, registry
from fusegen.tools.check.philox import uniform
from random_programs.formulas import evaluate, names_of
from random_programs.ops_in_torch import OWN, WRITTEN_OUT, affine, as_dims, declared

Value = Tensor | float | None
#: What becomes of the value of a step, given its place in the chain, before the next step takes it.
Hand = Callable[[int, Tensor], Tensor]


@dataclass
class Call:
    """What a chain is called with.

    Args:
        operands: the tensors beside x, by the names of `apply`.
        numbers: the float and int arguments, by name.
        training: the mode.
        seed: the seed of dropout's numbers.
        streams: of each step that drops elements, the stream of its numbers; by default each takes the next.
        moved: filled with the running averages that training leaves, by name.
        written_out: whether norms are, so that each of their operations is moved, and few digits stay exact.
    """

    operands: Mapping[str, Tensor]
    numbers: Mapping[str, float]
    training: bool = False
    seed: int = 0
    streams: Mapping[str, int] = field(default_factory=dict)
    moved: dict[str, Tensor] = field(default_factory=dict)
    written_out: bool = False


def run(
    document: Mapping[str, Any], x: Tensor, call: Call, hand: Hand = lambda _, value: value
) -> Tensor:
    """Return the value of a spec's chain after its product, whose bias is an operand.

    Args:
        document: the spec, as YAML data.
        x: the activation.
        call: what else the chain is called with.
        hand: what becomes of a step's value.
    """
    return _Run(document, call).value(x, hand)


def outputs(
    document: Mapping[str, Any], x: Tensor, call: Call, hand: Hand = lambda _, value: value
) -> tuple[Tensor, ...]:
    """Return the values that a spec returns; see `run`. Products are computed if `call` has their weights."""
    running = _Run(document, call)
    last = running.value(x, hand)
    named = [n["name"] if isinstance(n, dict) else n for n in document.get("outputs", [])]
    return tuple(running.named[n] for n in named) or (last,)


def values_of(document: Mapping[str, Any], x: Tensor, call: Call) -> dict[str, Tensor]:
    """Return all values of a spec's chain by name, the last one under "x"."""
    running = _Run(document, call)
    last = running.value(x, lambda _, value: value)
    return {**running.named, "x": last}


#: In the names of operands that have only the dims that they list.
OWN_DIMS = "own"


def _placed(document: Mapping[str, Any], call: Call) -> Call:
    """Return a call whose operands have all dims."""
    found = dict(call.operands)
    for name, entry in document.get("operands", {}).items():
        if name in found and OWN_DIMS in name:
            sizes = dict(zip(entry["dims"], found[name].shape, strict=True))
            found[name] = found[name].reshape([sizes.get(d, 1) for d in range(document["dims"])])
    return replace(call, operands=found)


#: The words for what takes a row as a whole.
_OF_ROWS = {op.name for op in registry().values() if op.dims or op.over} | {"max", "min"}


class _Run:
    def __init__(self, document: Mapping[str, Any], call: Call) -> None:
        self.document, self.call = document, _placed(document, call)
        self.named: dict[str, Tensor] = {}
        self.left: dict[int, list[int]] = {}  # of so many dims, those that later steps did not drop
        self.stream = self.place = 0
        self.hand: Hand = lambda _, value: value
        self.full = {
            n
            for n, o in document.get("operands", {}).items()
            if (o.get("kind") if isinstance(o, dict) else o) == "full"
        }

    def value(self, x: Tensor, hand: Hand) -> Tensor:
        self.hand = hand
        source = find(_word(self.document["chain"][0])[0])
        self.named["input"] = x
        first = _word(self.document["chain"][0])[1] or {}
        weight = f"{first.get('name')}_weight" if isinstance(first, dict) else ""
        if source is not None and source.source and weight not in self.call.operands:
            self.named.pop("input")
            if "input" in self.call.operands:
                self.named["input"] = self.call.operands["input"]
        for place, step in enumerate(self.document["chain"]):
            self.place = place
            word, given = _word(step)
            dims = x.dim()
            x, dropped, label = self._step(word, given, x)
            if x.dim() < dims:
                gone = {d % dims for d in dropped}
                self.left[dims] = list(range(dims))
                for rank, left in self.left.items():
                    if len(left) == dims:
                        self.left[rank] = [d for i, d in enumerate(left) if i not in gone]
            x = hand(place, x)
            self.named[label] = x
        return x

    def _step(self, word: str, given: Any, x: Tensor) -> tuple[Tensor, tuple[int, ...], str]:
        if word == "expr":
            return (
                self._formula(given, x),
                (),
                given.get("name", "") if isinstance(given, dict) else "",
            )
        op = find(word)
        assert op is not None
        given = _by_name(op, given)
        label = given.get("name", op.name)
        beside = self._beside([given.get(name) for name in op.operands], x)
        operands = {name: self._given(given.get(name), beside) for name in op.operands}
        attributes = {n: self._number(given.get(n, v)) for n, v in op.attributes.items()}
        if op.submodule is not None:
            rank = max(self.document.get("dims", op.rank) - 2, 0)
            for name, held in zip(op.operands, op.submodule.operands, strict=True):
                operands[name] = self._held(f"{label}_{held}", x, rank)
        if op.source:
            bias = operands.get("bias")
            if (weight := self.call.operands.get(f"{label}_weight")) is not None:
                start = given.get("of", "")
                x = self.named.get(start, self.call.operands.get(start, x))
                return self._product(x, weight, self.call.operands.get(f"{label}_bias")), (), label
            return x if bias is None else x + bias, (), label
        if op.eval_mode == "identity":
            return self._drop(op.name, label, x, attributes), (), label
        if op.trained is not None:
            return self._batch_norm(label, x, attributes), (), label
        if op.parts:
            (gate,) = op.parts
            dim, swapped = attributes.pop("dim"), attributes.pop("gate_first")
            alternating = attributes.pop("alternating")
            if operands[gate] is None:
                halves = (x[..., ::2], x[..., 1::2]) if alternating else x.chunk(2, dim)
                first, second = halves
                x, operands[gate] = (second, first) if swapped else (first, second)
            elif self.call.written_out and isinstance(operands[gate], Tensor):
                # A gate's gradient is then a sum of rounded terms, as it is in a kernel. What the
                # steps before have summed is smaller than the gate.
                shape = torch.broadcast_shapes(operands[gate].shape, x.shape)
                operands[gate] = operands[gate].expand(shape)
        dims = _dims(op, attributes, x)
        function = OWN.get(op.name) or functools.partial(declared, op)
        if self.call.written_out:
            function = WRITTEN_OUT.get(op.name, function)
        return function(x, *operands.values(), **attributes), dims, label

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return a linear layer's value: torch stores the product, to which a kernel adds the bias."""
        found = F.linear(x, weight)
        return found if bias is None else self.hand(self.place, found) + bias

    def _formula(self, given: Any, x: Tensor) -> Tensor:
        text, dims = given, (-1,)
        if isinstance(given, dict):
            text = given["formula"]
            whole = given.get("of", "")
            self.named |= _parts(given, self.named.get(whole, self.call.operands.get(whole, x)))
            dims = as_dims(given.get("dim", -1))
        known = {*self.call.operands, *self.named, *self.call.numbers}
        largest = self._beside(names_of(text), x)
        values = {name: self._given(name, largest) for name in names_of(text) if name in known}
        # A function of a row takes an operand as it is declared, not as large as a call happens to pass it.
        # One of operands alone starts from what it is passed.
        beside = not names_of(text).isdisjoint({"x", *self.named})
        for name in self.full & set(values) if beside and _OF_ROWS & names_of(text) else ():
            shape = torch.broadcast_shapes(values[name].shape, x.shape)
            values[name] = values[name].expand(shape)
        return evaluate(text, {"x": x, **values}, dims, self._called)

    def _called(
        self, name: str, arguments: list[Any], keywords: dict[str, Any], dims: tuple[int, ...]
    ) -> Tensor:
        """Return the value of a call of an op in a formula."""
        op = find(name)
        assert op is not None
        x, *rest = arguments
        given = dict(zip(op.operands, rest, strict=False)) | keywords
        operands = [given.get(n) for n in op.operands]
        attributes = {n: given.get(n, v) for n, v in op.attributes.items() if n not in op.of_parts}
        attributes |= dict.fromkeys(op.dims, dims if op.several else dims[0])
        attributes |= {"keepdim": True} if "keepdim" in attributes else {}
        function = OWN.get(name) or functools.partial(declared, op)
        if self.call.written_out:
            function = WRITTEN_OUT.get(name, function)
        return function(x, *operands, **attributes)

    def _beside(self, names: Iterable[Any], x: Tensor) -> Tensor:
        """Return what has the most dims of x and the earlier values that a step names."""
        named = [self.named[n] for n in names if isinstance(n, str) and n in self.named]
        return max([x, *named], key=Tensor.dim)

    def _given(self, value: Any, x: Tensor) -> Value:
        """Return what fills an operand's place, as it broadcasts with the largest value beside it."""
        if not isinstance(value, str):
            return None if value is None else float(value)
        if value in self.named:
            return self.named[value]
        if value in self.call.numbers:
            return self.call.numbers[value]
        tensor = self.call.operands[value]
        rank = self.document.get("dims", 0)
        left = self.left.get(rank, list(range(rank)))
        if self._of_channels(value) and 1 in left and len(left) == x.dim():
            place = left.index(1)
            return tensor.reshape(*[1] * place, -1, *[1] * (x.dim() - place - 1))
        if not tensor.is_floating_point() or tensor.dim() <= x.dim():
            return tensor
        if tensor.dim() in self.left:
            left = self.left[tensor.dim()]
            return tensor.reshape([n for d, n in enumerate(tensor.shape) if d in left or n != 1])
        return tensor.reshape(tensor.shape[-x.dim() :] if x.dim() else ())

    def _of_channels(self, name: str) -> bool:
        """Whether an operand has one number for each place of the activation's second dim."""
        declared = self.document.get("operands", {}).get(name)
        kind = declared.get("kind") if isinstance(declared, dict) else declared
        return kind == "channel" and self.document.get("dims", 0) > 2

    def _held(self, name: str, x: Tensor, after: int) -> Tensor | None:
        tensor = self.call.operands.get(name)
        if tensor is None or tensor.numel() == 1:
            return None if tensor is None else tensor.reshape(1)
        return tensor.reshape(-1, *[1] * (after if x.dim() > 2 else 0))

    def _number(self, value: Any) -> Any:
        if isinstance(value, str):
            if value in self.call.numbers:
                return self.call.numbers[value]
            return float(value) if value in ("inf", "-inf") else value
        return value

    def _drop(self, name: str, label: str, x: Tensor, attributes: Mapping[str, Any]) -> Tensor:
        if not self.call.training:
            return x
        drawn = uniform(self.call.seed, self.call.streams.get(label, self.stream), x.shape)
        self.stream += 1
        p = attributes["p"]
        dropped = drawn < p
        if name == "dropout":
            return torch.where(dropped, 0.0, x * (1 / (1 - p)))
        lowest = -1.7580993408473766
        a = 1 / math.sqrt((1 - p) * (1 + lowest**2 * p))
        return a * torch.where(dropped, lowest, x) - a * lowest * p

    def _batch_norm(self, label: str, x: Tensor, attributes: Mapping[str, Any]) -> Tensor:
        held = [self.call.operands[f"{label}_{n}"].flatten() for n in _BATCH_NORM]
        mean, var, weight, bias = held
        if not self.call.written_out:
            return self._native_batch_norm(label, x, held, attributes)
        if self.call.training:
            known = _only(attributes, "eps", "momentum")
            moved = [mean.detach().clone(), var.detach().clone()]
            F.batch_norm(x.detach(), *moved, training=True, **known)
            self.call.moved |= dict(zip([f"{label}_{n}" for n in _BATCH_NORM], moved, strict=False))
            dims = [d for d in range(x.dim()) if d != 1]
            mean, var = x.mean(dims), x.var(dims, correction=0)
        wide = (1, -1, *[1] * (x.dim() - 2))
        scale = torch.rsqrt(var + attributes["eps"])
        found = (x - mean.reshape(wide)) * scale.reshape(wide)
        return affine(found, weight.reshape(wide), bias.reshape(wide))

    def _native_batch_norm(
        self, label: str, x: Tensor, held: Sequence[Tensor], attributes: Mapping[str, Any]
    ) -> Tensor:
        training = self.call.training
        mean, var = (t.detach().clone() if training else t for t in held[:2])
        known = _only(attributes, "eps", "momentum")
        result = F.batch_norm(x, mean, var, *held[2:], training=training, **known)
        self.call.moved |= {f"{label}_running_mean": mean, f"{label}_running_var": var}
        return result


_BATCH_NORM = ("running_mean", "running_var", "weight", "bias")


def _parts(given: Mapping[str, Any], x: Tensor) -> dict[str, Tensor]:
    """Return the parts of x by the names that a formula gives them."""
    named = given.get("parts", [])
    if given.get("alternating"):
        return dict(zip(named, (x[..., ::2], x[..., 1::2]), strict=True))
    if isinstance(named, dict):
        sizes, dim = list(named.values()), given.get("dim", -1)
        rest = x.shape[dim] - sum(n for n in sizes if n > 0)
        return dict(zip(named, x.split([n if n > 0 else rest for n in sizes], dim), strict=True))
    parts = x.chunk(len(named), given.get("dim", -1)) if named else ()
    return dict(zip(named, parts, strict=True))


def _word(step: Any) -> tuple[str, Any]:
    if isinstance(step, str):
        return step, None
    ((word, given),) = step.items()
    return word, given


def _by_name(op: Op, given: Any) -> dict[str, Any]:
    """Return what a step is given by name: the sole operand, or the sole attribute, may stand alone."""
    if given is None:
        return {}
    if isinstance(given, dict):
        return given
    return {next(iter([*op.operands, *op.attributes])): given}


def _only(attributes: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: attributes[name] for name in names}


def _dims(op: Op, attributes: Mapping[str, Any], x: Tensor) -> tuple[int, ...]:
    """Return the dims that an op drops, if it drops any."""
    if op.over == "channel":
        return (1,)
    named = [attributes[n] for n in op.dims if attributes[n] is not None]
    return as_dims(named[0]) if named else tuple(range(x.dim()))
