"""A spec's chain by torch's own functions, read from the YAML data: nothing of fusegen's IR takes part.

Of fusegen only an op's declared signature is used: the names of its operands and attributes, its defaults,
and the name of the torch function that it equals.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fusegen.ops import Op, find
from fusegen.program import Kind
from fusegen.tools.check.philox import uniform
from random_programs.formulas import evaluate, names_of, root, variance

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
        moved: filled with the running averages that training leaves, by name.
        written_out: whether norms are, so that each of their operations is moved, and few digits stay exact.
    """

    operands: Mapping[str, Tensor]
    numbers: Mapping[str, float]
    training: bool = False
    seed: int = 0
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


class _Run:
    def __init__(self, document: Mapping[str, Any], call: Call) -> None:
        self.document, self.call = document, call
        self.named: dict[str, Tensor] = {}
        self.left: dict[int, list[int]] = {}  # of so many dims, those that later steps did not drop
        self.stream = 0

    def value(self, x: Tensor, hand: Hand) -> Tensor:
        source = find(_word(self.document["chain"][0])[0])
        self.named["input"] = x
        if source is not None and source.source:
            self.named.pop("input")
            if "input" in self.call.operands:
                self.named["input"] = self.call.operands["input"]
        for place, step in enumerate(self.document["chain"]):
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
        operands = {name: self._given(given.get(name), x) for name in op.operands}
        attributes = {n: self._number(given.get(n, v)) for n, v in op.attributes.items()}
        if op.submodule is not None:
            rank = max(self.document.get("dims", op.rank) - 2, 0)
            for name, held in zip(op.operands, op.submodule.operands, strict=True):
                operands[name] = self._held(f"{label}_{held}", x, rank)
        if op.source:
            bias = operands.get("bias")
            return x if bias is None else x + bias, (), label
        if op.eval_mode == "identity":
            return self._drop(op.name, x, attributes), (), label
        if op.trained is not None:
            return self._batch_norm(label, x, attributes), (), label
        if op.halves:
            dim = attributes.pop("dim")
            if operands[op.halves] is None:
                x, operands[op.halves] = x.chunk(2, dim)
        dims = _dims(op, attributes, x)
        function = _OWN.get(op.name) or functools.partial(_declared, op)
        if self.call.written_out:
            function = _WRITTEN_OUT.get(op.name, function)
        return function(x, *operands.values(), **attributes), dims, label

    def _formula(self, given: Any, x: Tensor) -> Tensor:
        text, dims = given, (-1,)
        if isinstance(given, dict):
            text = given["formula"]
            dims = _tuple(given.get("dim", -1))
        known = {*self.call.operands, *self.named, *self.call.numbers}
        values = {name: self._given(name, x) for name in names_of(text) if name in known}
        return evaluate(text, {"x": x, **values}, dims)

    def _given(self, value: Any, x: Tensor) -> Value:
        """Return what fills an operand's place, as it broadcasts with x."""
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

    def _drop(self, name: str, x: Tensor, attributes: Mapping[str, Any]) -> Tensor:
        if not self.call.training:
            return x
        drawn = uniform(self.call.seed, self.stream, x.shape)
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
        return _affine(found, weight.reshape(wide), bias.reshape(wide))

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


def _tuple(dim: Any) -> tuple[int, ...]:
    return tuple(dim) if isinstance(dim, (list, tuple)) else (dim,)


def _dims(op: Op, attributes: Mapping[str, Any], x: Tensor) -> tuple[int, ...]:
    """Return the dims that an op drops, if it drops any."""
    if op.over == "channel":
        return (1,)
    named = [attributes[n] for n in op.dims if attributes[n] is not None]
    return _tuple(named[0]) if named else tuple(range(x.dim()))


def _in_torch(op: Op) -> Callable[..., Any]:
    return functools.reduce(getattr, op.torch.split("."), torch)


#: torch's functions that take tensors alone in their operands' places.
_TENSORS = ("minimum", "maximum", "lerp", "addcmul")


def _declared(op: Op, x: Tensor, *operands: Value, **attributes: Any) -> Tensor:
    """Return the torch function that an op is declared to equal."""
    if op.name in _TENSORS:
        operands = tuple(_tensor(v, x) for v in operands)
    result = _in_torch(op)(x, *operands, **attributes)
    return result if isinstance(result, Tensor) else result.values


def _tensor(value: Value, x: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else x.new_tensor(value)


def _where(x: Tensor, condition: Value, other: Value) -> Tensor:
    return torch.where(_tensor(condition, x) != 0, x, other)  # type: ignore[arg-type]


# Where torch's own function is one operation whose derivative has a root, it is written out here: the noise
# then moves the terms that cancel.


def _swish(x: Tensor, beta: float = 1.0) -> Tensor:
    return x * torch.sigmoid(beta * x)


def _glu(x: Tensor, gate: Tensor) -> Tensor:
    return x * torch.sigmoid(_tensor(gate, x))


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return x * torch.special.ndtr(
            x
        )  # torch computes 1 + erf, of which nothing is left below -8
    return x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    # torch's derivative has 1 / alpha in float32, in float64 too.
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0.0) / alpha))


def _hardsigmoid(x: Tensor) -> Tensor:
    # torch has 1/6 in float32, in float64 too.
    return torch.where(x <= -3, 0.0, torch.where(x >= 3, 1.0, (x + 3) / 6))


def _hardswish(x: Tensor) -> Tensor:
    return torch.where(x <= -3, 0.0, torch.where(x >= 3, x, x * (x + 3) / 6))


def _geglu(x: Tensor, gate: Tensor, approximate: str) -> Tensor:
    return x * _gelu(_tensor(gate, x), approximate)


def _standardised(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) over some dims, as operations that noise moves one by one."""
    dims = tuple(dims)
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)


def _affine(x: Tensor, weight: Value, bias: Value = None) -> Tensor:
    found = x if weight is None else x * weight
    return found if bias is None else found + bias


def _over(x: Tensor, dim: Any, function: Callable[..., Tensor], eps: float) -> Tensor:
    """Return a norm of torch over any neighbouring dims: they are moved after the others and back."""
    dims = sorted(d % x.dim() for d in _tuple(dim))
    last = list(range(-len(dims), 0))
    sizes = [x.shape[d] for d in dims]
    return function(x.movedim(dims, last), sizes, eps=eps).movedim(last, dims)


def _layer_norm(x: Tensor, weight: Value, bias: Value, *, eps: float, dim: Any) -> Tensor:
    return _affine(_over(x, dim, F.layer_norm, eps), weight, bias)


def _exact_layer_norm(x: Tensor, weight: Value, bias: Value, *, eps: float, dim: Any) -> Tensor:
    return _affine(_standardised(x, _tuple(dim), eps), weight, bias)


def _rms_norm(x: Tensor, weight: Value, *, eps: float, dim: Any) -> Tensor:
    return _affine(_over(x, dim, F.rms_norm, eps), weight)


def _var(x: Tensor, *, dim: Any, correction: int, keepdim: bool) -> Tensor:
    return variance(x, _tuple(dim), correction=correction, keepdim=keepdim)


def _std(x: Tensor, **attributes: Any) -> Tensor:
    return root(_var(x, **attributes))


def _norm(x: Tensor, *, p: Any, dim: Any, keepdim: bool) -> Tensor:
    return torch.norm(x, float(p), dim, keepdim)


def _exact_norm(x: Tensor, *, p: Any, dim: Any, keepdim: bool) -> Tensor:
    """Return the norm by its definition, whose powers may leave the range where torch's own does not."""
    power = float(p)
    if math.isinf(power) or power == 0:
        return _norm(x, p=p, dim=dim, keepdim=keepdim)
    dims = tuple(range(x.dim())) if dim is None else _tuple(dim)
    size = x.abs()
    added = (size * size if power == 2 else size**power).sum(dims, keepdim=keepdim)
    return root(added, power)


def _instance_norm(x: Tensor, weight: Value, bias: Value, *, eps: float) -> Tensor:
    return _affine(F.instance_norm(x, eps=eps), *_of_channel(x, weight, bias))


def _exact_instance_norm(x: Tensor, weight: Value, bias: Value, *, eps: float) -> Tensor:
    F.instance_norm(x.detach(), eps=eps)  # refuses what has one value a channel
    return _affine(_standardised(x, range(2, x.dim()), eps), *_of_channel(x, weight, bias))


def _group_norm(x: Tensor, weight: Value, bias: Value, *, num_groups: int, eps: float) -> Tensor:
    found = F.group_norm(x, int(num_groups), eps=eps)
    return _affine(found, *_of_channel(x, weight, bias))


def _exact_group_norm(
    x: Tensor, weight: Value, bias: Value, *, num_groups: int, eps: float
) -> Tensor:
    F.group_norm(x.detach(), int(num_groups), eps=eps)  # refuses what has one value a group
    groups = x.reshape(x.shape[0], int(num_groups), -1)
    found = _standardised(groups, (-1,), eps).reshape(x.shape)
    return _affine(found, *_of_channel(x, weight, bias))


def _of_channel(x: Tensor, *values: Value) -> list[Value]:
    wide = (1, -1, *[1] * (x.dim() - 2))
    return [v.reshape(wide) if isinstance(v, Tensor) and v.numel() > 1 else v for v in values]


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return F.prelu(x, weight.flatten())


def _elementwise(name: str) -> Callable[..., Tensor]:
    """Return a loss of targets that broadcast."""

    def loss(x: Tensor, target: Value, *more: Value, **attributes: Any) -> Tensor:
        function = getattr(F, name)
        weights = dict(zip(("weight", "pos_weight"), more, strict=False))
        given = {n: _tensor(v, x).detach() for n, v in weights.items() if v is not None}
        both = torch.broadcast_tensors(x, _tensor(target, x), *given.values())[:2]
        return function(*both, **given, **attributes)

    return loss


def _of_classes(name: str) -> Callable[..., Tensor]:
    def loss(x: Tensor, target: Tensor, weight: Value, **attributes: Any) -> Tensor:
        known = None if weight is None else _tensor(weight, x).detach().flatten().expand(x.shape[1])
        return getattr(F, name)(x, target, weight=known, **attributes)

    return loss


def _causal_mask(x: Tensor, position: Tensor) -> Tensor:
    """Mask along the dim that `position` lacks, the last one that it can be."""
    shape = list(x.shape)
    kept = [n for n in position.shape if n != 1]
    for last in range(x.dim(), 0, -1):
        for first in reversed(range(last)):
            if [n for n in shape[:first] + shape[last:] if n != 1] == kept:
                counts = [1] * first + shape[first:last] + [1] * (x.dim() - last)
                columns = torch.arange(math.prod(counts)).reshape(counts)
                rows = [*shape[:first], *[1] * (last - first), *shape[last:]]
                return x.masked_fill(position.reshape(rows) < columns, -math.inf)
    # An earlier step has dropped the columns.
    return x.masked_fill(position.reshape(x.shape) < 0, -math.inf)


#: Ops that torch has under another form, or not at all.
_OWN: dict[str, Callable[..., Tensor]] = {
    "causal_mask": _causal_mask,
    "celu": _celu,
    "cross_entropy": _of_classes("cross_entropy"),
    "geglu": _geglu,
    "gelu": _gelu,
    "glu": _glu,
    "group_norm": _group_norm,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "nll_loss": _of_classes("nll_loss"),
    "norm": _norm,
    "prelu": _prelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "reglu": lambda x, gate: x * F.relu(_tensor(gate, x)),
    "rms_norm": _rms_norm,
    "swiglu": lambda x, gate, beta: x * _swish(_tensor(gate, x), beta),
    "swish": _swish,
    "where": _where,
    **{
        name: _elementwise(name)
        for name in (
            *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div"),
            "binary_cross_entropy_with_logits",
        )
    },
}
#: The same where few digits are to stay exact.
_WRITTEN_OUT: dict[str, Callable[..., Tensor]] = {
    "group_norm": _exact_group_norm,
    "instance_norm": _exact_instance_norm,
    "layer_norm": _exact_layer_norm,
    "norm": _exact_norm,
    "std": _std,
    "var": _var,
}
#: Kinds by the word of the spec.
KINDS = {kind.label: kind for kind in Kind}
