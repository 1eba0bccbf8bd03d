"""An op as a call of torch's own function, for those who compare with it or time it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusegen.ops import Op

#: What fills an operand's place: a tensor, a number, or nothing.
Given = Tensor | float | None
#: A call with the attributes bound: x and the operands in the op's order.
Call = Callable[[Tensor, Sequence[Given]], Tensor]


def torch_call(op: Op, attributes: Mapping[str, Any], *, training: bool) -> Call | None:
    """Return the torch function that an op equals, or None where torch has none.

    Args:
        op: the op.
        attributes: its attributes, as values.
        training: the mode, for functions that know one.
    """
    if not op.torch or any(attributes[name] != op.attributes[name] for name in op.own):
        return None
    function: Any = functools.reduce(getattr, op.torch.split("."), torch)
    keywords = {name: value for name, value in attributes.items() if name not in op.own}
    if op.trained or op.eval_mode == "identity":
        keywords["training"] = training
    if "normalized_shape" in _parameters(function):
        return lambda x, given: function(
            x,
            normalized_shape=x.shape[-1:],
            **dict(zip(op.operands, given, strict=True)),
            **keywords,
        )
    if op.optional:
        return lambda x, given: function(
            x, **dict(zip(op.operands, given, strict=True)), **keywords
        )
    wants_tensors = function in (torch.minimum, torch.maximum, torch.lerp, torch.addcmul)

    def call(x: Tensor, given: Sequence[Given]) -> Tensor:
        if wants_tensors:
            given = [v if isinstance(v, Tensor) else x.new_tensor(v) for v in given]
        result = function(x, *given, **keywords)
        found: Tensor = result if isinstance(result, Tensor) else result.values
        return found

    return call


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # a builtin of torch has no signature, and none of them takes a shape
        return {}
