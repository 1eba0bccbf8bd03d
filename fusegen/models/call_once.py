"""Calls a model once, so that torch captures it, and leaves it and its inputs as they were."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen.models.module_state import ModuleState, TensorState

__all__ = ["FunctionModel", "Inputs", "call", "call_once", "copied"]

#: Example inputs: a tensor, positional inputs, or keyword inputs.
Inputs = Tensor | Sequence[Any] | Mapping[str, Any]


class FunctionModel(nn.Module):
    """A function of tensors as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.forward = function


def call_once(
    function: Callable[..., Any],
    model: nn.Module | None,
    inputs: Inputs,
    changed: TensorState | None = None,
) -> None:
    """Call a function of a model; leave the model's state and the random numbers as they are.

    Args:
        function: the model, or what calls it.
        model: the model, if there is one.
        inputs: what the function is called on; give copies, since it may change them.
        changed: the tensors that captured graphs change, which the back end keeps.
    """
    modules = list(model.modules()) if model is not None else []
    seen = set(map(id, modules))
    before = [ModuleState(module, seen) for module in modules]
    devices = sorted({p.device.index for m in modules[:1] for p in m.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices=[d for d in devices if d is not None]), _same_numbers():
        try:
            call(function, inputs)
        finally:
            for state in before:
                state.put_back()
            if changed is not None:
                changed.put_back()


@contextlib.contextmanager
def _same_numbers() -> Iterator[None]:
    """Leave the random numbers of Python and of NumPy, if a program uses it, as they are."""
    numbers, numpy = random.getstate(), sys.modules.get("numpy")
    arrays = numpy.random.get_state() if numpy is not None else None
    try:
        yield
    finally:
        random.setstate(numbers)
        if numpy is not None:
            numpy.random.set_state(arrays)


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
