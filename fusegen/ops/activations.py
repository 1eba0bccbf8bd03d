"""Activation functions: pointwise functions of x.

A kink is a `where`. Its branches are chosen so that the derivative at the kink is torch's. A NaN takes the
last branch, so NaN stays NaN. That branch is `undefined` if torch has no gradient for NaN.
"""

from __future__ import annotations

import math

import sympy as sp

from fusegen.atoms import (
    absolute,
    expm1,
    let,
    minus_infinity,
    normcdf,
    sigmoid,
    sign,
    softplus,
    softsign,
    tanh,
    tanhshrink,
    undefined,
    where,
)
from fusegen.ops.declare import op
from fusegen.ops.model import Range, Submodule
from fusegen.program import Kind


@op("nn.functional.relu")
def relu(x: sp.Expr) -> sp.Expr:
    """max(x, 0); the derivative at 0 is 0. torch.nn.ReLU."""
    return where(x <= 0, 0, x)


@op("nn.functional.relu6")
def relu6(x: sp.Expr) -> sp.Expr:
    """min(max(x, 0), 6); the derivative at 0 and 6 is 0. torch.nn.ReLU6."""
    return hardtanh.formula(x, min_val=0, max_val=6)


@op("nn.functional.leaky_relu")
def leaky_relu(x: sp.Expr, *, negative_slope: float = 0.01) -> sp.Expr:
    """x above 0, negative_slope x elsewhere. Maas et al. 2013; torch.nn.LeakyReLU."""
    return where(x > 0, x, negative_slope * x)


@op(
    "nn.functional.prelu",
    kinds={"weight": Kind.SCALAR},
    submodule=Submodule(
        "nn.PReLU",
        geometry={"num_parameters": 1},
        operands=("weight",),
        channels="num_parameters",
    ),
    refused={"init": "fill the Module's weight when it is made"},
)
def prelu(x: sp.Expr, weight: sp.Expr) -> sp.Expr:
    """x above 0, weight x elsewhere, with one weight or one a channel. He et al. 2015, arXiv:1502.01852."""
    return where(x > 0, x, weight * x)


@op("nn.functional.elu")
def elu(x: sp.Expr, *, alpha: float = 1.0) -> sp.Expr:
    """x above 0, alpha (exp(x) - 1) elsewhere. Clevert et al. 2015, arXiv:1511.07289."""
    return where(x > 0, x, alpha * expm1(x))


@op("nn.functional.selu")
def selu(x: sp.Expr) -> sp.Expr:
    """s x above 0, s a (exp(x) - 1) elsewhere. Klambauer et al. 2017, arXiv:1706.02515, for s and a."""
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    return where(x > 0, scale * x, scale * alpha * expm1(x))


@op("nn.functional.celu")
def celu(x: sp.Expr, *, alpha: float = 1.0) -> sp.Expr:
    """x above 0, alpha (exp(x / alpha) - 1) elsewhere. Barron 2017, arXiv:1704.07483."""
    return where(x > 0, x, alpha * expm1(x / alpha))


@op("sigmoid")
def sigmoid_(x: sp.Expr) -> sp.Expr:
    """1 / (1 + exp(-x)). torch.sigmoid."""
    return sigmoid(x)


@op("nn.functional.logsigmoid", aliases=("logsigmoid",))
def log_sigmoid(x: sp.Expr) -> sp.Expr:
    """log(1 / (1 + exp(-x))), without overflow. torch.nn.LogSigmoid."""
    return -softplus(-x)


@op("nn.functional.silu", aliases=("silu",), own=("beta",))
def swish(x: sp.Expr, *, beta: float = 1.0) -> sp.Expr:
    """x sigmoid(beta x). Ramachandran et al. 2017, arXiv:1710.05941; torch.nn.SiLU with beta 1."""
    return x * _gate(x, beta)


def _gate(x: sp.Expr, beta: float) -> sp.Expr:
    """Return sigmoid(beta x).

    `let` names it, so its derivative is a separate value, which is 0 where x beta would overflow.
    """
    return sigmoid(x) if beta == 1 else let("gate", sigmoid(beta * x))


@op("tanh")
def tanh_(x: sp.Expr) -> sp.Expr:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)). torch.tanh."""
    return tanh(x)


@op("nn.functional.gelu", choices={"approximate": ("none", "tanh")})
def gelu(x: sp.Expr, *, approximate: str = "none") -> sp.Expr:
    """x normcdf(x), or its tanh approximation. Hendrycks & Gimpel 2016, arXiv:1606.08415."""
    if approximate == "none":
        return x * normcdf(x)
    slope = 2 * math.sqrt(2 / math.pi)  # (1 + tanh(u)) / 2 is sigmoid(2 u), which does not cancel
    # Beyond 32 the sigmoid is 0 or 1 in any dtype, and powers of x would overflow in the derivatives.
    near = let("near", where(x > 32, 32, where(x < -32, -32, x)))
    return x * let("gate", sigmoid(near * (slope + 0.044715 * slope * near**2)))


@op()
def quick_gelu(x: sp.Expr) -> sp.Expr:
    """x sigmoid(1.702 x). Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2."""
    return x * _gate(x, 1.702)


@op("nn.functional.softplus")
def softplus_(x: sp.Expr, *, beta: float = 1.0, threshold: float = 20.0) -> sp.Expr:
    """log(1 + exp(beta x)) / beta, and x where beta x > threshold. torch.nn.Softplus."""
    return where(beta * x > threshold, x, softplus(beta * x) / beta)


@op("nn.functional.mish")
def mish(x: sp.Expr) -> sp.Expr:
    """x tanh(softplus(x)). Misra 2019, arXiv:1908.08681."""
    return x * tanh(softplus(x))


@op("nn.functional.softsign")
def softsign_(x: sp.Expr) -> sp.Expr:
    """x / (1 + |x|). torch.nn.Softsign."""
    return softsign(x)


@op("nn.functional.tanhshrink")
def tanhshrink_(x: sp.Expr) -> sp.Expr:
    """x - tanh(x). torch.nn.Tanhshrink."""
    return tanhshrink(x)


@op("nn.functional.hardshrink")
def hardshrink(x: sp.Expr, *, lambd: float = 0.5) -> sp.Expr:
    """x, and 0 where |x| <= lambd; the derivative at both bounds is 0. torch.nn.Hardshrink."""
    return where(absolute(x) <= lambd, 0, x)


@op("nn.functional.softshrink", ranges={"lambd": Range(0)})
def softshrink(x: sp.Expr, *, lambd: float = 0.5) -> sp.Expr:
    """x - lambd sign(x), and 0 where |x| <= lambd. torch.nn.Softshrink."""
    return where(absolute(x) <= lambd, 0, x - lambd * sign(x))


@op("nn.functional.threshold")
def threshold_(x: sp.Expr, *, threshold: float, value: float) -> sp.Expr:
    """x above threshold, value elsewhere. torch.nn.Threshold."""
    return where(x <= threshold, value, x)


@op("nn.functional.hardsigmoid", coarse=True)
def hardsigmoid(x: sp.Expr) -> sp.Expr:
    """min(max(x / 6 + 1 / 2, 0), 1); the derivative at -3 and 3 is 0. torch.nn.Hardsigmoid."""
    shifted = let("shifted", x + 3)  # x / 6 + 1 / 2 would lose its digits near -3
    return where(x <= -3, 0, where(x >= 3, 1, where(x < 3, shifted / 6, undefined)))


@op("nn.functional.hardswish", coarse=True)
def hardswish(x: sp.Expr) -> sp.Expr:
    """x min(max(x / 6 + 1 / 2, 0), 1). Howard et al. 2019, arXiv:1905.02244; torch.nn.Hardswish."""
    low = where(sp.Eq(x, minus_infinity), undefined, 0)  # -infinity times 0
    return where(x <= -3, low, where(x >= 3, x, x * (x + 3) / 6))


@op("nn.functional.hardtanh", ascending=("min_val", "max_val"))
def hardtanh(x: sp.Expr, *, min_val: float = -1.0, max_val: float = 1.0) -> sp.Expr:
    """x clipped to [min_val, max_val]; the derivative at both bounds is 0. torch.nn.Hardtanh."""
    inside = where(x < max_val, x, undefined)
    return where(x <= min_val, min_val, where(x >= max_val, max_val, inside))
