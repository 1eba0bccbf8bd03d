"""Which ops torch.autocast computes in float32, and so returns in float32, by the device.

torch's own lists are in ATen/autocast_mode.h. A function that is made of others is listed where one of them
is: `square` is a power, `normalize` divides by a norm. Other ops keep the dtype of what they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["IN_FLOAT32", "LOWERED"]

_LOSSES = frozenset(
    {
        *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "nll_loss"),
        *("cross_entropy", "binary_cross_entropy_with_logits"),
    }
)

#: Ops that autocast computes in 16 bits, whatever they are given; products are others.
LOWERED = frozenset({"prelu"})
#: The names of the ops, and of functions of formulas that are made of these. `pow` is also `a ** b` of a
#: formula, and `reciprocal` a number by a tensor.
IN_FLOAT32: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "cpu": _LOSSES,
        "cuda": _LOSSES
        | {
            *("exp", "expm1", "log", "log1p", "rsqrt", "square", "pow", "reciprocal", "softplus"),
            *("acos", "asin", "cosh", "log10", "log2", "sinh", "tan"),
            *("sum", "norm", "normalize", "logsumexp", "softmax", "softmin", "log_softmax"),
            *("layer_norm", "rms_norm", "group_norm", "normpdf", "sech2"),
        },
    }
)
