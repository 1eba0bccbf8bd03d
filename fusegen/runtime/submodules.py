"""Whether a submodule only has parameters, so a generated `Module` need not call it.

A `Module` reads the parameters of its submodules, and its kernels compute the same results. But hooks,
parametrizations, adapters, subclasses and changed attributes act only when a submodule is called. So each
call of the `Module` checks for them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as _torch

#: torch's dicts of global hooks; torch never replaces these dicts.
_FORWARD, _FORWARD_PRE = _torch._global_forward_hooks, _torch._global_forward_pre_hooks
_BACKWARD, _BACKWARD_PRE = _torch._global_backward_hooks, _torch._global_backward_pre_hooks


def plain(module: Any, kind: type[nn.Module]) -> bool:
    """Return whether calling a module runs the `forward` of torch's class `kind` and nothing else.

    A parametrization, `fully_shard` and adapters change the class. Pruning and the old `weight_norm` and
    `spectral_norm` are hooks. Some tools set `forward` on the instance.
    """
    return (
        type(module) is kind
        and not (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            or _FORWARD
            or _FORWARD_PRE
            or _BACKWARD
            or _BACKWARD_PRE
        )
        and "forward" not in module.__dict__
    )


def no_bias(product: Tensor, dim: int) -> Tensor:
    """Return a bias that changes nothing, for a product that already has its bias.

    Args:
        product: the product.
        dim: the dim of its channels.
    """
    return product.new_full((product.shape[dim],), -0.0)  # 0.0 would turn -0.0 into 0.0
