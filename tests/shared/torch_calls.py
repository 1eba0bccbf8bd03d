"""A chain and its original as modules, and as functions of all their tensors."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from shared.originals import ORIGINALS
from test_transforms import Derived, Function
from torch import Tensor, nn

from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain

Package = Callable[[str], ModuleType]


def modules(
    name: str, package: Package, *, training: bool = False, **to: Any
) -> tuple[nn.Module, nn.Module]:
    """Return the original and the generated module with the same parameters."""
    cls, arguments = ORIGINALS[name]
    made = []
    for kind in (cls, package(name).Module):
        torch.manual_seed(0)
        made.append(kind(*arguments).train(training).to(**to))
    return made[0], made[1]


def whole(name: str, package: Package, derived: Derived) -> tuple[Function, Function, list[Tensor]]:
    """Return the fused and the eager chain as functions of x and of all operands, and those."""
    chain = derived(name)
    case = verify.make_case(chain, (3, 5), training=False)
    numbers = {k: v for k, v in case.options.items() if k in chain.attributes}

    def fused(x: Tensor, *operands: Tensor) -> Tensor:
        result: Tensor = package(name).apply(x, *operands, **case.options)
        return result

    def eager(x: Tensor, *operands: Tensor) -> Tensor:
        given = dict(zip(case.operands, operands, strict=True))
        return run_chain(chain.spec, x, given, numbers, training=False, seed=case.seed)

    return fused, eager, [case.x, *case.operands.values()]
