"""Functions in float64 where torch's own cancel."""

from __future__ import annotations

import math

import mpmath
import torch


def tanhshrink(x: torch.Tensor) -> torch.Tensor:
    """x - tanh(x), below 1/4 by the series of tanh."""
    series = torch.zeros_like(x)
    for n in range(12, 1, -1):  # of tanh(x): 2^2n (2^2n - 1) B_2n / (2n)! x^(2n - 1)
        bernoulli = float(mpmath.bernoulli(2 * n))
        series = series * x * x - 4**n * (4**n - 1) * bernoulli / math.factorial(2 * n)
    return torch.where(x.abs() < 0.25, x**3 * series, x - torch.tanh(x))
