"""Rounding errors as random numbers: runs a program with a random error in each operation.

To first order the error of a result is a sum over all operations: the operation's own error times the
derivative of the result by it (Linnainmaa 1976, "Taylor expansion of the accumulated rounding error"; Higham
2002, Accuracy and Stability of Numerical Algorithms, ch. 3). Evaluating the program in float64 with an error
drawn at each operation gives one sample of that sum (Parker 1997, "Monte Carlo arithmetic"). No derivative is
needed, and correlations are kept: an error that two terms share, such as that of a maximum subtracted from
both, cancels as in the kernels. Higham's running error adds magnitudes on the way and takes such errors for
independent. After a softmax of large numbers it is far too wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import sympy as sp
import torch
from torch import Tensor

from fusegen.atoms import ATOMS


class Rounding:
    """Changes the value of each operation; this base class returns it unchanged."""

    def operation(self, expr: sp.Basic, value: Any, args: Sequence[Any]) -> Any:
        """Return the value of an expression whose arguments have the values `args`."""
        del expr, args
        return value

    def sum(self, terms: Tensor, dims: Sequence[int]) -> Tensor:
        """Return the sum over some dims, which stay with size 1; without dims, the terms themselves."""
        # torch 2.11 sums over everything if dims is empty.
        return terms.sum(tuple(dims), keepdim=True) if dims else terms

    def stored(self, value: Tensor) -> Tensor:
        """Return a value after one kernel has stored it for another."""
        return value


EXACT = Rounding()


class StoredRounding(Rounding):
    """Rounds what one kernel stores for another, and nothing else.

    The errors may all have one sign: numbers that have a dtype's digits, less the same small number each, are
    rounded back to what they were.

    Args:
        dtype: the dtype in which values are stored.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def stored(self, value: Tensor) -> Tensor:
        """Return a value with the digits of its stored dtype."""
        return value.to(self.dtype).to(value.dtype)


#: The number of errors to choose from for stored values, and a factor that spreads bits for the choice.
_STORED, _ODD = 2**16, 0x1E3779B97F4A7C15


def _scales(factors: Sequence[Any]) -> bool:
    """Whether a product only scales one of its factors by powers of two."""
    numbers = [factor for factor in factors if not isinstance(factor, Tensor)]
    return len(factors) - len(numbers) < 2 and all(abs(math.frexp(n)[0]) == 0.5 for n in numbers)


class RandomRounding(Rounding):
    """Errors drawn from a normal distribution, whose deviation is half a unit of each operation's value.

    For a sum the unit is relative to the magnitudes that are added: partial sums may be that large.

    Args:
        unit: the unit of arithmetic, such as 2^-23 for float32, as a relative error.
        function_unit: the unit of functions, such as exp.
        stored_unit: the unit of stored values.
        least: below this a function may be 0.
        seed: the seed of the errors.
    """

    def __init__(
        self, unit: float, function_unit: float, stored_unit: float, *, least: float, seed: int
    ) -> None:
        self.unit, self.function_unit, self.stored_unit = unit, function_unit, stored_unit
        self.least = least
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn: dict[tuple[float, torch.device], Tensor] = {}

    def operation(self, expr: sp.Basic, value: Any, args: Sequence[Any]) -> Any:
        """Return a value with an error; a function has its own unit."""
        if not isinstance(value, Tensor):
            return value if args else self._number(value)
        if expr.is_Add:
            # Two terms have one rounding. But a term may be scaled first: x/3 + 1/2 for (2 x + 3)/6.
            if len(args) == 2 and all(isinstance(arg, Tensor) for arg in args):
                return value * self._factors(value, self.unit)
            return self._near(value, sum(abs(arg) for arg in args))
        if expr.is_Mul or (expr.is_Pow and (2 * expr.args[1]).is_integer):
            exact = expr.is_Mul and _scales(args)
            return value if exact else value * self._factors(value, self.unit)
        if expr.func in ATOMS and ATOMS[expr.func].exact:
            return value
        factors = self._factors(value, self.function_unit)
        if expr.func is sp.exp:  # 1 at 0, so a result near 1 loses nothing
            part = torch.as_tensor(args[0]).abs().div(self.function_unit).clamp_(max=1)
            factors = 1 + (factors - 1) * part
        below = (value.abs() < self.least) & (value != 0)
        if below.any():  # 0 as often as its value
            factors = torch.where(below & (factors < 1), 0.0, factors)
        return value * factors

    def sum(self, terms: Tensor, dims: Sequence[int]) -> Tensor:
        """Return the sum with an error relative to the magnitudes of its terms.

        Each lane adds its terms one after another, so errors grow as the root of their number (Higham & Mary
        2019, "A new approach to probabilistic rounding error analysis"). They grow faster if many terms are
        equal, such as dropped elements in a softmax, because each is rounded the same way.
        """
        exact = super().sum(terms, dims)
        if terms.numel() == exact.numel():
            return exact
        growth = max(1.0, math.sqrt(terms.numel() / exact.numel()) / 8)
        return self._near(exact, terms.abs().sum(tuple(dims), keepdim=True) * growth)

    def stored(self, value: Tensor) -> Tensor:
        """Return a value with the error of its stored dtype, chosen by the bits of each element.

        Equal elements, such as those of a broadcast, are rounded the same way.
        """
        if not self.stored_unit:
            return value
        bits = value.contiguous().view(torch.int64)
        place = (bits * _ODD >> 40) & (_STORED - 1)
        factors = self._factors(value.new_empty(_STORED), self.stored_unit)
        return value * factors[place]

    def _number(self, value: float) -> float:
        """Return a number as float32 may store it: with an error if it is not exact."""
        if not math.isfinite(value) or float(torch.tensor(value, dtype=torch.float32)) == value:
            return value
        return value * float(self._factors(torch.tensor(value, dtype=torch.float64), self.unit))

    def _near(self, value: Tensor, size: Tensor) -> Tensor:
        """Return a value with an error of half a unit of a size; infinities stay infinite."""
        error = (self._factors(value, self.unit) - 1) * size
        return value + torch.where(torch.isfinite(error), error, 0.0)

    def _factors(self, like: Tensor, unit: float) -> Tensor:
        """Return factors in a tensor's shape, each half a unit away from 1: a window of numbers drawn
        before."""
        count = like.numel()
        drawn = self.drawn.get((unit, like.device))
        if drawn is None or len(drawn) < 2 * count + 64:  # windows that start anywhere
            normal = torch.randn(2 * count + 4096, generator=self.generator, dtype=torch.float64)
            drawn = normal.mul_(unit / 2).add_(1).to(like.device)
            self.drawn[unit, like.device] = drawn
        start = int(torch.randint(len(drawn) - count, (), generator=self.generator))
        return drawn[start : start + count].reshape(like.shape)
