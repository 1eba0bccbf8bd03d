"""An op as a call of torch's own function, for comparing and timing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusegen.ops import Op
from fusegen.runtime.steps import as_large_as

#: The value of an operand: a tensor, a number, or None.
Given = Tensor | float | None
#: A call with the attributes bound: x and the operands in the op's order.
Call = Callable[[Tensor, Sequence[Given]], Tensor]


def torch_call(op: Op, attributes: Mapping[str, Any], *, training: bool) -> Call | None:
    """Return the torch function that an op equals, or None if torch has none.

    Args:
        op: the op.
        attributes: its attributes, as values.
        training: the mode, for functions with one.
    """
    if not op.is_in_torch(attributes):
        return None
    function = _in_torch(op.torch)
    keywords = {name: value for name, value in attributes.items() if name not in op.own}
    if op.trained or op.eval_mode == "identity":
        keywords["training"] = training
    if op.takes_shape:
        return lambda x, given: function(
            x,
            normalized_shape=x.shape[-1:],
            **_by_name(op, x, given),
            **keywords,
        )
    if op.optional:
        return lambda x, given: function(x, **_by_name(op, x, given), **keywords)

    def call(x: Tensor, given: Sequence[Given]) -> Tensor:
        given = [
            v != 0 if name in op.conditions else v
            for name, v in zip(op.operands, given, strict=True)
        ]
        if op.takes_tensors:
            given = [_as_tensor(op, x, v) for v in given]
        result = function(x, *given, **keywords)
        found: Tensor = result if isinstance(result, Tensor) else result.values
        return found

    return call


def _by_name(op: Op, x: Tensor, given: Sequence[Given]) -> dict[str, Given]:
    """Return operands by name; torch takes one number per channel only as [C]."""
    found: dict[str, Given] = {}
    for name, value in zip(op.operands, given, strict=True):
        value = _as_tensor(op, x, value) if value is not None else value
        if isinstance(value, Tensor):
            value = value.flatten() if name in op.of_channels else value
            value = as_large_as(value, x) if op.is_alike(name) else value
        found[name] = value
    return found


def _as_tensor(op: Op, x: Tensor, value: Given) -> Tensor:
    """Return a number as a tensor, of x's shape for a loss, of a row or the channels for a norm."""
    if isinstance(value, Tensor):
        return value
    assert value is not None
    if op.takes_alike:
        return torch.full_like(x, value)
    if op.optional:  # of a norm
        return x.new_full(x.shape[-1:] if op.takes_shape else x.shape[1:2], value)
    return x.new_tensor(value)


def untaken(op: Op) -> list[str]:
    """Return the parameters of an op's torch function, and of its torch module, that the op does not take."""
    found: dict[str, None] = {}
    if op.torch:
        function = _in_torch(op.torch)
        found |= dict.fromkeys(_parameters(function) or _schema_parameters(function))
    known = {"input", "self", "x", "_stacklevel", *op.operands, *op.attributes, *op.inputs}
    if op.submodule:
        module = _in_torch(op.submodule.module_for(0))
        found |= dict.fromkeys(_parameters(module.__init__))
        known |= {*op.submodule.sized_by, *op.submodule.geometry, op.submodule.flag}
        known |= {"num_features", "num_channels", "weight"} if op.submodule.sized_by else set()
    return [name for name in found if name not in known]


def _in_torch(name: str) -> Any:
    return functools.reduce(getattr, name.split("."), torch)


def _schema_parameters(function: Any) -> list[str]:
    """Return the parameters of a builtin of torch, from the schemas of its overloads for tensors."""
    packet = getattr(torch.ops.aten, function.__name__)
    schemas = [getattr(packet, name)._schema for name in packet.overloads()]
    return [
        argument.name
        for schema in schemas
        if str(schema.arguments[0].type) == "Tensor"
        for argument in schema.arguments
        if argument.alias_info is None
    ]


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    try:
        found = inspect.signature(function).parameters
        return {name: one for name, one in found.items() if one.kind not in several}
    except ValueError:  # a builtin of torch has no signature, and no builtin takes a shape
        return {}
