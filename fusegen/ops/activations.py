"""Activations: pointwise functions of the activation alone.

A kink is a `where` whose branches hold the subgradient that torch takes there, and whose last
branch is the one that a NaN falls into, so that NaN stays NaN.
"""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import absolute, exp, expm1, normcdf, sigmoid, softplus, tanh, where
from fusegen.ops.declare import op


@op("nn.functional.relu")
def relu(x: sp.Expr) -> sp.Expr:
    """max(x, 0); the derivative at 0 is 0. torch.nn.ReLU."""
    return where(x <= 0, 0, x)


@op("nn.functional.leaky_relu")
def leaky_relu(x: sp.Expr, *, negative_slope: float = 0.01) -> sp.Expr:
    """x above 0, negative_slope x elsewhere. Maas et al. 2013; torch.nn.LeakyReLU."""
    return where(x <= 0, negative_slope * x, x)


@op("nn.functional.elu")
def elu(x: sp.Expr, *, alpha: float = 1.0) -> sp.Expr:
    """x above 0, alpha (exp(x) - 1) elsewhere. Clevert et al. 2015, arXiv:1511.07289."""
    return where(x <= 0, alpha * expm1(x), x)


@op("nn.functional.hardtanh")
def hardtanh(x: sp.Expr, *, min_val: float = -1.0, max_val: float = 1.0) -> sp.Expr:
    """x clipped to [min_val, max_val]; the derivative at both bounds is 0. torch.nn.Hardtanh."""
    return where(x <= min_val, min_val, where(x >= max_val, max_val, x))


@op("sigmoid")
def sigmoid_(x: sp.Expr) -> sp.Expr:
    """1 / (1 + exp(-x)). torch.sigmoid."""
    return sigmoid(x)


@op("nn.functional.silu", aliases=("silu",))
def swish(x: sp.Expr) -> sp.Expr:
    """x sigmoid(x). Ramachandran et al. 2017, arXiv:1710.05941; torch.nn.SiLU."""
    return x * sigmoid(x)


@op("tanh")
def tanh_(x: sp.Expr) -> sp.Expr:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)). torch.tanh."""
    return tanh(x)


@op("nn.functional.gelu", choices={"approximate": ("none", "tanh")})
def gelu(x: sp.Expr, *, approximate: str = "none") -> sp.Expr:
    """x normcdf(x), or its tanh approximation. Hendrycks & Gimpel 2016, arXiv:1606.08415."""
    if approximate == "none":
        return x * normcdf(x)
    return x * (1 + tanh(sp.sqrt(2 / sp.pi) * (x + 0.044715 * x**3))) / 2


@op("nn.functional.softplus")
def softplus_(x: sp.Expr) -> sp.Expr:
    """log(1 + exp(x)), without overflow. torch.nn.Softplus with beta 1."""
    return softplus(x)


@op("nn.functional.mish")
def mish(x: sp.Expr) -> sp.Expr:
    """x tanh(softplus(x)). Misra 2019, arXiv:1908.08681."""
    return x * tanh(softplus(x))


@op("nn.functional.softsign")
def softsign(x: sp.Expr) -> sp.Expr:
    """x / (1 + |x|). torch.nn.Softsign."""
    return x / (1 + absolute(x))


@op("exp")
def exp_(x: sp.Expr) -> sp.Expr:
    """exp(x). torch.exp."""
    return exp(x)


@op("square")
def square(x: sp.Expr) -> sp.Expr:
    """x^2. torch.square."""
    return x**2
