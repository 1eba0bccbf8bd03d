"""What users run today: a spec's chain as plain torch functions, which torch.compile can trace whole."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fusegen.chain import Chain
from fusegen.spec_types import Ref, Step

#: One step of a chain: takes the activation and the operands by name.
_Call = Callable[[Tensor, Mapping[str, Tensor]], Tensor]


def eager_tail(chain: Chain, numbers: Mapping[str, float]) -> Callable[..., Tensor]:
    """Return the chain behind the matmul, in training, as a function of x and the operands in order."""
    names = [operand.name for operand in chain.operands]
    calls = [_call(step, numbers) for step in chain.spec.steps]

    def tail(x: Tensor, *operands: Tensor) -> Tensor:
        given = dict(zip(names, operands, strict=True))
        for call in calls:
            x = call(x, given)
        return x

    return tail


class EagerModel(nn.Module):
    """The model that a generated Module replaces, with a copy of its submodules and parameters."""

    def __init__(self, chain: Chain, fused: nn.Module, numbers: Mapping[str, float]) -> None:
        super().__init__()
        for name, child in fused.named_children():
            self.add_module(name, copy.deepcopy(child))
        for name, parameter in fused.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(parameter.detach().clone()))
        self._calls: list[_Call | str] = [
            step.label if hasattr(self, step.label) else _call(step, numbers)
            for step in chain.spec.steps
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's output for x [rows, in_features]."""
        given = dict(self.named_parameters(recurse=False))
        for call in self._calls:
            x = getattr(self, call)(x) if isinstance(call, str) else call(x, given)
        return x


def _call(step: Step, numbers: Mapping[str, float]) -> _Call:
    if step.op is None:
        raise ValueError(f"{step.label}: a formula has no torch function to be compared with")
    if step.op.source:
        bias = f"{step.label}_bias"
        return lambda x, given: x + given[bias] if bias in given else x
    function: Any = functools.reduce(getattr, step.op.torch.split("."), torch)
    keywords = {k: _value(v, numbers) for k, v in step.attributes.items()}
    operands = list(step.operands.values())

    def call(x: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        values = [_operand(o, given, numbers) for o in operands]
        result: Tensor = function(x, *values, **keywords)
        return result

    return call


def _value(value: object, numbers: Mapping[str, float]) -> object:
    return numbers[value.name] if isinstance(value, Ref) else value


def _operand(
    operand: Ref | float, given: Mapping[str, Tensor], numbers: Mapping[str, float]
) -> Tensor | float:
    if not isinstance(operand, Ref):
        return operand
    return numbers[operand.name] if operand.is_argument else given[operand.name]
