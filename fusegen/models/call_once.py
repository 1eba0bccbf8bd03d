"""Calls a model once, so that torch captures it, and leaves it and its inputs as they were."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

__all__ = ["FunctionModel", "Inputs", "call", "call_once", "copied", "entry"]

#: Example inputs: a tensor, positional inputs, or keyword inputs.
Inputs = Tensor | Sequence[Any] | Mapping[str, Any]

_COUNT = itertools.count()


class FunctionModel(nn.Module):
    """A function of tensors as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function


def entry(model: nn.Module) -> Callable[..., Any]:
    """Return a function that calls a model, with code of its own.

    torch compiles no code of `torch.nn` by itself, such as that of a Sequential. And it compiles the same
    code at most eight times, which several fused models would share.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return model._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]

    code = call.__code__.replace(co_name=f"fused_model_{next(_COUNT)}")
    return types.FunctionType(code, call.__globals__, code.co_name, None, call.__closure__)


def call_once(function: Callable[..., Any], model: nn.Module, inputs: Inputs) -> None:
    """Call a function of a model; leave the model's buffers and the random numbers as they are.

    Args:
        function: the model, or what calls it.
        model: the model.
        inputs: what the function is called on; give copies, since it may change them.
    """
    kept = [(m, dict(m._buffers)) for m in model.modules()]
    values = {id(b): b.clone() for _, buffers in kept for b in buffers.values() if b is not None}
    devices = sorted({p.device.index for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
        try:
            call(function, inputs)
        finally:
            with torch.no_grad():
                for module, buffers in kept:
                    module._buffers.clear()
                    module._buffers.update(buffers)
                    for buffer in buffers.values():
                        if buffer is not None:
                            buffer.copy_(values[id(buffer)])


def call(function: Callable[..., Any], inputs: Inputs) -> None:
    """Call a function on example inputs."""
    if isinstance(inputs, Tensor):
        function(inputs)
    elif isinstance(inputs, Mapping):
        function(**inputs)
    else:
        function(*inputs)


def copied(inputs: Any) -> Any:
    """Return inputs with a copy of each tensor."""
    return _pytree.tree_map_only(Tensor, _copy, inputs)


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    return copy.requires_grad_() if tensor.requires_grad else copy
