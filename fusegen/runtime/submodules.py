"""Whether a submodule is no more than its parameters, so that a generated `Module` may leave out calling it.

A `Module` reads the parameters of its submodules and computes with kernels of its own what they would. Hooks,
parametrizations, adapters, subclasses and changed attributes act when a submodule is called, so each call of
the `Module` asks first.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as _torch

#: torch's own dicts of the hooks that every module has; it never replaces them.
_FORWARD, _FORWARD_PRE = _torch._global_forward_hooks, _torch._global_forward_pre_hooks
_BACKWARD, _BACKWARD_PRE = _torch._global_backward_hooks, _torch._global_backward_pre_hooks


def plain(module: Any, kind: type[nn.Module]) -> bool:
    """Return whether calling a module runs the `forward` of torch's class `kind` and nothing else.

    A parametrization, `fully_shard` and adapters change the class; pruning, `weight_norm` and `spectral_norm`
    of the old style are hooks; some tools set `forward` on the instance.
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
    """Return a bias that changes nothing, for a product that has its bias already.

    Args:
        product: the product.
        dim: the dim of its channels.
    """
    return product.new_full((product.shape[dim],), -0.0)  # 0.0 would turn -0.0 into 0.0
