"""A weight that several products read, as those of a recurrence's steps: they sum its gradient in one tensor.

Otherwise each product writes a gradient as large as the weight, and autograd adds them one by one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional

from fusegen.runtime import movement
from fusegen.runtime.observers import in_plain_eager, is_transformed

__all__ = ["linear", "shared"]


def shared(weight: Tensor) -> Tensor:
    """Return a weight that `linear` reads several times; its gradient comes when all of these have run.

    Under autocast it stays a leaf, which torch converts once.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return weight
    if torch.is_autocast_enabled(weight.device.type):
        return weight
    if type(weight) not in (Tensor, Parameter) or not in_plain_eager():
        return weight
    found: Tensor = _Shared.apply(weight)
    return found


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x times what `shared` gave, and plus a bias."""
    is_shared = getattr(weight.grad_fn, "sums", None) is not None
    if not is_shared or type(x) is not Tensor or torch.is_autocast_enabled(x.device.type):
        return movement.linear(x, weight, bias)
    found: Tensor = _Product.apply(x, weight, bias)
    return found


class _Shared(torch.autograd.Function):
    """The weight itself. Its gradient is the sum that the products have left, by backward pass."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.sums = {}
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Tensor | None:
        found: Tensor | None = ctx.sums.pop(torch._C._current_graph_task_id(), None)
        if found is None or cotangent is None:
            return cotangent if found is None else found
        return found + cotangent


class _Product(torch.autograd.Function):
    """A product plus a bias.

    With rows x [n, k], a weight W [m, k] and a cotangent c [n, m] of x W^T + b, the gradients are c W, c^T x
    and the sum of c's rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        ctx.shared = weight.grad_fn
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        if cotangent is None:
            return None, None, None
        x, weight = ctx.saved_tensors
        by_x = torch.matmul(cotangent, weight) if ctx.needs_input_grad[0] else None
        c, rows = cotangent.reshape(-1, cotangent.shape[-1]), x.reshape(-1, x.shape[-1])
        by_bias = movement.summed(c) if ctx.needs_input_grad[2] else None
        # Of a second derivative, or several gradients at once, autograd adds.
        if torch.is_grad_enabled() or is_transformed():
            return by_x, torch.mm(c.t(), rows), by_bias
        if torch._C._will_engine_execute_node(ctx.shared):  # the weight's gradient is asked for
            sums, now = ctx.shared.sums, torch._C._current_graph_task_id()
            if now in sums:
                sums[now].addmm_(c.t(), rows)
            else:
                sums[now] = torch.mm(c.t(), rows)
        return by_x, None, by_bias
