"""The arguments of a node of a captured graph: by name, as the op's declaration calls them, and checked."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import guard_scalar

from fusegen.models import patterns
from fusegen.ops import Op

__all__ = [
    "Argument",
    "UnfitError",
    "argument",
    "arguments_of",
    "attributes_of",
    "check_left",
    "constant",
    "dims_of",
    "listed",
    "name_of",
    "operands_of",
    "size_of",
    "tensor_of",
]

#: An input of a call: a node, or a number.
Argument = fx.Node | float
#: Parameters that torch's functions call by another name than ops do.
_RENAMED = {"input": "x", "self": "x", "ord": "p"}


#: Parameters that say nothing about the value.
_IGNORED = frozenset({"inplace", "_stacklevel", "dtype", "stacklevel", "training", "train"})


class UnfitError(Exception):
    """A node that is no call of an op. The message says why, for the report."""


def tensor_of(node: Any) -> Tensor | None:
    """Return the fake tensor that says what a node's value is like; None of what is no tensor."""
    value = node.meta.get("example_value") if isinstance(node, fx.Node) else None
    return value if isinstance(value, Tensor) else None


def name_of(node: fx.Node) -> str:
    """Return what a node calls, as people know it."""
    target: Any = node.target
    if isinstance(target, str):
        return target
    return str(patterns.SHOWN.get(target) or getattr(target, "__name__", target))


def arguments_of(node: fx.Node, op: Op) -> dict[str, Any]:
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
    name = name_of(node).rstrip("_") or op.name
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


def argument(value: Any) -> Argument:
    """Return an input of a call.

    Raises:
        UnfitError: if it is neither a node nor a finite number.
    """
    symbol = _symbol(value)
    if symbol is not None and (known := symbol.node.maybe_as_float()) is not None:
        value = known
    if isinstance(value, fx.Node):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError(f"an input is {type(value).__name__}")
    return float(constant("an input", value))


def constant(name: str, value: Any) -> float | int | bool | str:
    """Return an attribute that is known now.

    With sizes that change, torch makes symbols of the numbers of modules, such as eps. They become constants
    here: torch compiles anew if one changes.

    Raises:
        UnfitError: if it is known at the call alone, or no finite number.
    """
    symbol = _symbol(value)
    if symbol is not None:
        value = guard_scalar(symbol)
    if not isinstance(value, bool | int | float | str):
        raise UnfitError(f"{name} is not known before the call")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnfitError(f"{name} is not finite")
    return value


def _symbol(value: Any) -> torch.SymFloat | None:
    """Return the symbol of a number that a node gives, if it is one."""
    number = value.meta.get("example_value") if isinstance(value, fx.Node) else None
    return number if isinstance(number, torch.SymFloat) else None


def size_of(value: Any) -> int:
    """Return a number of channels.

    Raises:
        UnfitError: if it is a symbol.
    """
    if isinstance(value, torch.SymInt) and (known := value.node.maybe_as_int()) is not None:
        return int(known)
    if not isinstance(value, int):
        raise UnfitError("the number of channels changes from call to call")
    return value


def listed(value: Any) -> list[Any]:
    """Return dims or sizes as a list, of one where there is one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def dims_of(dim: Any, tensor: Tensor | None) -> tuple[int, ...]:
    """Return dims counted from the end, in order.

    Raises:
        UnfitError: if there are none, or not known now.
    """
    if tensor is None or not tensor.dim():
        raise UnfitError("a reduction of a single number")
    if dim is None or dim in ([], ()):
        raise UnfitError("a reduction over all dims")
    found = listed(dim)
    if not all(isinstance(d, int) for d in found):
        raise UnfitError("dims that are not known before the call")
    return tuple(sorted(d - tensor.dim() if d >= 0 else d for d in found))


def operands_of(op: Op, given: dict[str, Any]) -> dict[str, Argument]:
    """Take the operands out of the arguments; what decides a choice is none."""
    operands = {}
    for name in op.operands:
        if name in op.conditions:
            continue
        value = given.pop(name, None)
        if value is not None:
            operands[name] = argument(value)
        elif name not in op.optional and name not in op.parts:
            raise UnfitError(f"{op.name} without {name}")
    return operands


def attributes_of(op: Op, given: dict[str, Any]) -> dict[str, float | int | bool | str]:
    """Take the attributes out of the arguments; return those that are not the op's defaults."""
    attributes = {}
    for name, default in op.attributes.items():
        if name in ("dim", "keepdim") and op.dims:
            continue
        value = given.pop(name, default)
        if name == "p" and value in ("fro", None):
            value = 2.0
        if name == "correction" and "unbiased" in given:
            value = int(given.pop("unbiased"))
        if op.conditions and value in (math.inf, -math.inf):
            value = "inf" if value > 0 else "-inf"
        if value != default:
            attributes[name] = constant(name, value)
    return attributes


def check_left(op: Op, given: dict[str, Any]) -> None:
    """Refuse arguments that nothing has taken."""
    left = {
        k: v for k, v in given.items() if k not in _IGNORED and v is not None and v is not False
    }
    if left:
        raise UnfitError(f"{op.name} with {', '.join(left)}")
