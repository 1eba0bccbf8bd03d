"""A node of a captured graph -> a call of an op, or the reason why it is none."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fusegen.models import patterns
from fusegen.ops import Op

__all__ = ["Call", "Comparison", "UnfitError", "call_of", "tensor_of"]

#: An input of a call: a node, or a number.
Argument = fx.Node | float
#: Parameters that torch's functions call by another name than ops do.
_RENAMED = {"input": "x", "self": "x", "ord": "p"}
#: Parameters that say nothing about the value.
_IGNORED = frozenset({"inplace", "_stacklevel", "dtype", "stacklevel", "training", "train"})


class UnfitError(Exception):
    """A node that is no call of an op. The message says why, for the report."""


@dataclass(frozen=True)
class Comparison:
    """A condition that a kernel computes: `left`, one of `< <= > >=`, `right`."""

    left: Argument
    sign: str
    right: Argument


@dataclass(frozen=True)
class Call:
    """What a node computes, in the words of a spec.

    Args:
        op: the op, or None of a cast, which leaves the value as it is.
        x: what the op is called on.
        operands: its operands by name.
        attributes: its attributes by name, those of torch's call that differ from the op's defaults.
        dims: the dims that it reduces or normalises over, counted from the end.
        keepdim: whether a reduced dim is kept, with size 1.
        training: whether it computes as in training.
        features: the number of channels, of an op that is a step of its own.
        condition: what a choice goes by: a comparison, or a tensor of bool.
    """

    op: Op | None
    x: Argument
    operands: Mapping[str, Argument] = field(default_factory=dict)
    attributes: Mapping[str, float | int | bool | str] = field(default_factory=dict)
    dims: tuple[int, ...] = ()
    keepdim: bool = True
    training: bool = False
    features: int = 0
    condition: Comparison | fx.Node | None = None

    @property
    def name(self) -> str:
        """The op's name."""
        return self.op.name if self.op else "cast"

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """The nodes that it reads, each once."""
        given = [self.x, *self.operands.values()]
        if isinstance(self.condition, Comparison):
            given += [self.condition.left, self.condition.right]
        elif self.condition is not None:
            given.append(self.condition)
        return tuple(dict.fromkeys(a for a in given if isinstance(a, fx.Node)))


def tensor_of(node: Any) -> Tensor | None:
    """Return the fake tensor that says what a node's value is like; None of what is no tensor."""
    value = node.meta.get("example_value") if isinstance(node, fx.Node) else None
    return value if isinstance(value, Tensor) else None


def call_of(node: fx.Node) -> Call:
    """Return what a node computes, in the words of a spec.

    Raises:
        UnfitError: if no op computes it.
    """
    value = tensor_of(node)
    if value is None or not value.is_floating_point():
        raise UnfitError("its value is no floating-point tensor")
    if node.op == "call_method" and node.target in patterns.CASTS:
        return _cast(node, value)
    op = _op(node)
    if op is None:
        raise UnfitError(f"{_name(node)} is no op of fusegen")
    given = _given(node, op)
    call = _of_op(op, given)
    for used in call.inputs:
        tensor = tensor_of(used)
        if tensor is None or not (tensor.is_floating_point() or used is call.condition):
            raise UnfitError("an input is no floating-point tensor")
        if tensor.device != value.device:
            raise UnfitError("an input is on another device")
    return call


def _name(node: fx.Node) -> str:
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _op(node: fx.Node) -> Op | None:
    if node.op == "call_function":
        return patterns.op_of_function(node.target)
    return patterns.op_of_method(str(node.target)) if node.op == "call_method" else None


def _cast(node: fx.Node, value: Tensor) -> Call:
    """Return a change of dtype; a copy to another device or layout is none."""
    before = tensor_of(node.args[0])
    if before is None or not before.is_floating_point() or before.device != value.device:
        raise UnfitError("a copy to another device, or of another type")
    extra = {"memory_format", "copy"} & set(node.kwargs)
    if extra or any(isinstance(a, torch.memory_format) for a in node.args):
        raise UnfitError("a copy")
    assert isinstance(node.args[0], fx.Node)
    return Call(None, node.args[0])


def _given(node: fx.Node, op: Op) -> dict[str, Any]:
    """Return a node's arguments by their names in the op's declaration.

    Raises:
        UnfitError: if they are those of no known form of the function.
    """
    function: Any = node.target
    if node.op == "call_method":  # a few are written in Python
        function = getattr(torch.Tensor, str(node.target), None)
    if inspect.isfunction(function):
        bound = inspect.signature(function).bind(*node.args, **node.kwargs)
        bound.apply_defaults()
        named = dict(bound.arguments)
    elif len(node.args) == 2 and op.name in patterns.INFIX and not node.kwargs:
        second = next(iter(op.operands))
        named = {"x": node.args[0], second: node.args[1]}
    else:
        named = _by_schema(node, op)
    return {_RENAMED.get(name, name): value for name, value in named.items()}


def _by_schema(node: fx.Node, op: Op) -> dict[str, Any]:
    """Return the arguments of a function of C++ or of a method by name, from the first overload they fit."""
    name = _name(node).rstrip("_") or op.name
    words = (name, op.torch.rsplit(".", 1)[-1], op.name)
    for word in dict.fromkeys(words):
        for schema in torch._C._jit_get_schemas_for_operator(f"aten::{word}"):
            named = _fit(schema.arguments, node.args, node.kwargs)
            if named is not None:
                return named
    raise UnfitError(f"no form of {name} takes these arguments")


def _fit(
    parameters: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return arguments by name if a function with these parameters takes them, else None."""
    positional = [p for p in parameters if not p.kwarg_only]
    if len(args) > len(positional):
        return None
    named = {p.name: value for p, value in zip(positional, args, strict=False)}
    known = {p.name: p for p in parameters}
    for name, value in kwargs.items():
        name = {"axis": "dim", "input": "self"}.get(name, name)
        if name not in known or name in named:
            return None
        named[name] = value
    if any(p.name not in named and not p.has_default_value() for p in parameters):
        return None
    return named if all(_is_a(v, str(known[k].type)) for k, v in named.items()) else None


def _is_a(value: Any, kind: str) -> bool:
    """Return whether a value may be an argument of a type of torch's schemas."""
    if value is None:
        return kind.startswith("Optional")
    kind = kind.removeprefix("Optional[").removesuffix("]") if kind.startswith("Opt") else kind
    if kind == "Tensor":
        return isinstance(value, fx.Node)
    if kind == "bool":
        return isinstance(value, bool)
    if kind.startswith("List"):
        return isinstance(value, list | tuple | int) and not isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str)
    return not isinstance(value, bool | str | list | tuple)


def _of_op(op: Op, given: dict[str, Any]) -> Call:
    x = given.pop("x", None)
    training = bool(given.get("training", given.get("train", False)))
    if op.eval_mode == "identity" and (not training or given.get("p") == 0):
        return Call(None, _argument(x))
    if op.name == "batch_norm":
        training = training and given.get("running_mean") is not None
    features = 0
    dims: tuple[int, ...] = ()
    keepdim = bool(given.pop("keepdim", False))
    reads = tensor_of(x)
    if op.name in patterns.KEPT:
        if reads is None or reads.dim() < 2:
            raise UnfitError(f"{op.name} of fewer than two dims")
        features = _size(reads.shape[1]) if op.submodule and op.submodule.operands else 0
        given = _of_kept(op, given)
    elif op.takes_shape:
        dims = tuple(range(-len(_list(given.pop("normalized_shape", ()))), 0))
        if op.name == "rms_norm" and given.get("eps") is None:
            if reads is None or reads.dtype not in (torch.float32, torch.float64):
                raise UnfitError("rms_norm of 16 bits without eps")
            given["eps"] = torch.finfo(reads.dtype).eps
    elif op.dims:
        dims = _dims(given.pop("dim", op.attributes.get("dim")), reads)
    operands = {}
    condition = None
    for name in op.conditions:
        condition = _condition(given.pop(name, None))
    for name in op.operands:
        if name in op.conditions:
            continue
        argument = given.pop(name, None)
        if argument is not None:
            operands[name] = _argument(argument)
        elif name not in op.optional:
            raise UnfitError(f"{op.name} without {name}")
    attributes = {}
    for name, default in op.attributes.items():
        if name in ("dim", "keepdim") and op.dims:
            continue
        attribute = given.pop(name, default)
        if name == "p" and attribute in ("fro", None):
            attribute = 2.0
        if name == "correction" and "unbiased" in given:
            attribute = int(given.pop("unbiased"))
        if op.conditions and attribute in (math.inf, -math.inf):
            attribute = "inf" if attribute > 0 else "-inf"
        if attribute != default:
            attributes[name] = _constant(name, attribute)
    left = {
        k: v for k, v in given.items() if k not in _IGNORED and v is not None and v is not False
    }
    if left:
        raise UnfitError(f"{op.name} with {', '.join(left)}")
    if not isinstance(x, fx.Node) and op.name not in (*patterns.INFIX, "where"):
        raise UnfitError(f"{op.name} of a number")
    reduces = op.dims and "keepdim" in op.attributes
    return Call(
        op,
        _argument(x),
        operands,
        attributes,
        dims,
        keepdim or not reduces,
        training,
        features,
        condition,
    )


def _of_kept(op: Op, given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an op with state, in its own words.

    Raises:
        UnfitError: if the op does not do what the arguments say.
    """
    if op.name == "instance_norm":
        if not given.pop("use_input_stats", True) or given.get("running_mean") is not None:
            raise UnfitError("instance_norm with running averages")
        for name in ("running_mean", "running_var", "momentum"):
            given.pop(name, None)
    given.pop("cudnn_enabled", None)
    weights = [given.get(name) is not None for name in ("weight", "bias") if name in op.operands]
    if any(weights) and not all(weights):
        raise UnfitError(f"{op.name} with a weight or a bias alone")
    if op.name == "batch_norm" and (not all(weights) or given.get("running_mean") is None):
        raise UnfitError("batch_norm without a weight, or without running averages")
    return given


def _condition(value: Any) -> Comparison | fx.Node:
    """Return what a choice goes by.

    Raises:
        UnfitError: if it is neither a comparison nor a tensor of bool.
    """
    if not isinstance(value, fx.Node):
        raise UnfitError("a condition that is no tensor")
    sign = patterns.COMPARISONS.get(value.target)
    if sign and len(value.args) == 2 and not value.kwargs:
        left, right = value.args
        tensors = [tensor_of(a) for a in (left, right) if isinstance(a, fx.Node)]
        if all(t is not None and t.is_floating_point() for t in tensors):
            return Comparison(_argument(left), sign, _argument(right))
    tensor = tensor_of(value)
    if tensor is None or tensor.dtype is not torch.bool:
        raise UnfitError("a condition that is no tensor of bool")
    return value


def _argument(value: Any) -> Argument:
    if isinstance(value, fx.Node):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError(f"an input is {type(value).__name__}")
    return float(_constant("an input", value))


def _constant(name: str, value: Any) -> float | int | bool | str:
    """Return an attribute that is known now.

    Raises:
        UnfitError: if it is known at the call alone, or no finite number.
    """
    if not isinstance(value, bool | int | float | str):
        raise UnfitError(f"{name} is not known before the call")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnfitError(f"{name} is not finite")
    return value


def _size(value: Any) -> int:
    if not isinstance(value, int):
        raise UnfitError("the number of channels changes from call to call")
    return value


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _dims(dim: Any, tensor: Tensor | None) -> tuple[int, ...]:
    """Return dims counted from the end, in order.

    Raises:
        UnfitError: if there are none, or not known now.
    """
    if tensor is None or not tensor.dim():
        raise UnfitError("a reduction of a single number")
    if dim is None or dim in ([], ()):
        raise UnfitError("a reduction over all dims")
    found = _list(dim)
    if not all(isinstance(d, int) for d in found):
        raise UnfitError("dims that are not known before the call")
    return tuple(sorted(d - tensor.dim() if d >= 0 else d for d in found))
