"""Calls a model once, so that torch captures it, and leaves it and its inputs as they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen.models.module_state import ModuleState

__all__ = ["FunctionModel", "Inputs", "call", "call_once", "copied"]

#: Example inputs: a tensor, positional inputs, or keyword inputs.
Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


class FunctionModel(nn.Module):
    """A function of tensors as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function


def call_once(function: Callable[..., Any], model: nn.Module, inputs: Inputs) -> None:
    """Call a function of a model; leave the model's state and the random numbers as they are.

    Args:
        function: the model, or what calls it.
        model: the model.
        inputs: what the function is called on; give copies, since it may change them.
    """
    before = [ModuleState(module) for module in model.modules()]
    devices = sorted({p.device.index for p in model.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
        try:
            call(function, inputs)
        finally:
            for state in before:
                state.put_back()


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
