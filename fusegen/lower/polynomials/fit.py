"""Minimax polynomials, fitted when code is generated, with their errors measured.

The best polynomial of a degree is the one whose weighted error reaches its largest magnitude at degree + 2
points with alternating signs (Chebyshev). Remez' exchange algorithm finds it. Its coefficients are then
rounded to float32. Its error is measured in float32 arithmetic, at points between those of the fit. (Muller,
Elementary Functions, 3rd ed. 2016, ch. 3.)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import mpmath

#: The smallest normal float32 number.
SMALLEST = 2.0**-126
#: One ulp of float32 at 1, twice the largest relative rounding error.
ULP = 2.0**-23

#: The error that one polynomial may have in each precision: a third of an ulp of float32, or an eighth of
#: half an ulp of float16 (which is more than enough for bfloat16).
BUDGET: dict[str, float] = {"single": 2.0**-24.5, "brief": 2.0**-13.5}

_SAMPLES = 48  # for the Chebyshev coefficients
_POINTS = 24  # grid points per coefficient


@dataclass(frozen=True)
class Polynomial:
    """A fitted polynomial p(s) on [low, high].

    Args:
        coefficients: float32 numbers, the constant first.
        low, high: the interval on which it holds.
        error: the largest |p / f - 1|, evaluated in float32. If `f` has a zero inside, it is the largest |p -
            f| relative to |f| or to a sixteenth of the largest |f|, whichever is more. If `absolute`, it is
            the largest |p - f|.
        absolute: whether `error` is absolute. That is what counts if the polynomial approximates a logarithm.
    """

    coefficients: tuple[float, ...]
    low: float
    high: float
    error: float
    absolute: bool = False

    @property
    def degree(self) -> int:
        """The highest power."""
        return len(self.coefficients) - 1

    def horner(self, variable: str) -> str:
        """Return the polynomial in C++ over the scalar type `T`: a call of `polynomial` in arithmetic.h."""
        return f"polynomial({', '.join([variable, *map(literal, self.coefficients)])})"

    @property
    def accuracy(self) -> str:
        """The degree and the error in words."""
        if self.absolute:
            return f"degree {self.degree}, absolute error {self.error:.1e}"
        return (
            f"degree {self.degree}, error {self.error:.1e} ({self.error / ULP:.2g} ulp of float32)"
        )


def literal(value: float) -> str:
    """Return a float32 number as C++ of the scalar type `T`, with as few digits as identify it."""
    for digits in range(1, 18):
        text = f"{value:.{digits}g}"
        if single(float(text)) == value:
            break
    return f"T({text})"


def single(value: float) -> float:
    """Round to float32."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def evaluate(coefficients: Sequence[float], s: float) -> float:
    """Return the polynomial at `s`, in float32 arithmetic with fused multiply-adds."""
    value = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = single(value * s + coefficient)
    return value


def fit(
    function: Callable[[mpmath.mpf], mpmath.mpf],
    low: float,
    high: float,
    budget: float,
    most: int,
    *,
    absolute: bool = False,
    exact: Sequence[float] = (),
) -> Polynomial | None:
    """Return the polynomial of the lowest degree within a budget, or None if the degree `most` is not enough.

    Args:
        function: takes and returns an mpmath number; smooth on [low, high].
        low, high: the interval.
        budget: the largest error, defined as in `Polynomial.error`, before rounding to float32.
        most: the highest degree.
        absolute: whether the budget is an absolute error.
        exact: the first coefficients, if they are prescribed, from the function's own series at 0.
            Expressions such as exp(s) - 1 or x - tanh(x), in which equal terms cancel, then keep a correct
            remainder.
    """
    if max(abs(_value(function, s)) for s in _nodes(low, high, _POINTS)) < SMALLEST:
        return None  # it is 0 in float32
    least = _least_degree(function, low, high, budget, most, absolute)
    for degree in range(max(least, len(exact)), most + 1):
        coefficients, error = _remez(function, low, high, degree, absolute, exact)
        if error <= budget:
            rounded = tuple(single(c) for c in coefficients)
            measured = _measure(function, rounded, low, high, absolute)
            if measured > 4 * budget + 2 * ULP:  # its terms cancel, so float32 has too few digits
                return None
            return Polynomial(rounded, low, high, measured, absolute)
    return None


def _least_degree(
    function: Callable[[mpmath.mpf], mpmath.mpf],
    low: float,
    high: float,
    budget: float,
    most: int,
    absolute: bool,
) -> int:
    """Return a degree below which no polynomial is within a budget.

    T_k is orthogonal to polynomials p of degree d < k. So the k-th Chebyshev coefficient of f is that of f -
    p, and thus at most 4 / pi times the largest |f - p|.
    """
    angles = [math.pi * (k + 0.5) / _SAMPLES for k in range(_SAMPLES)]
    values = [
        _value(function, (low + high) / 2 + (high - low) / 2 * math.cos(angle)) for angle in angles
    ]
    size = 1.0 if absolute else max(abs(v) for v in values)
    for degree in range(most, -1, -1):
        terms = (
            v * math.cos((degree + 1) * angle) for v, angle in zip(values, angles, strict=True)
        )
        if math.pi / 4 * abs(2 / _SAMPLES * math.fsum(terms)) > 1.1 * budget * size:
            return degree + 1
    return 0


def _remez(
    function: Callable[[mpmath.mpf], mpmath.mpf],
    low: float,
    high: float,
    degree: int,
    absolute: bool,
    exact: Sequence[float],
) -> tuple[list[float], float]:
    """Return the minimax polynomial's coefficients and its weighted error.

    With k prescribed coefficients, q is fitted in exact(s) + s^k q(s). If k is odd, the error changes its
    sign at 0 although q does not, so the weights change theirs there too.
    """
    count, first = degree + 2 - len(exact), len(exact)
    nodes = _nodes(low, high, _POINTS * (degree + 2))
    if exact:
        nodes = [s for s in nodes if s != 0]
    total = len(nodes)
    values = [_value(function, s) for s in nodes]
    weights = [1.0] * total if absolute else _weights(values)
    if first % 2:
        weights = [math.copysign(w, s) for w, s in zip(weights, nodes, strict=True)]
    chosen = [round(k * (total - 1) / (count - 1)) for k in range(count)]
    coefficients: list[float] = []
    error = math.inf
    for _ in range(12):
        with mpmath.workdps(40):
            matrix = mpmath.matrix(count, count)
            right = mpmath.matrix(count, 1)
            for row, k in enumerate(chosen):
                s = mpmath.mpf(nodes[k])
                for power in range(first, degree + 1):
                    matrix[row, power - first] = s**power
                matrix[row, count - 1] = (-1) ** row * weights[k]
                right[row] = values[k] - mpmath.fsum(c * s**p for p, c in enumerate(exact))
            solved = mpmath.lu_solve(matrix, right)
            coefficients = [*exact, *(float(solved[p]) for p in range(count - 1))]
            levelled = abs(float(solved[count - 1]))
        errors = [
            (_horner(coefficients, s) - v) / w
            for s, v, w in zip(nodes, values, weights, strict=True)
        ]
        error = max(abs(e) for e in errors)
        if error <= levelled * 1.02 or error < 1e-15:
            break
        chosen = _extrema(errors, count)
    return coefficients, error


def _nodes(low: float, high: float, total: int) -> list[float]:
    """Return the points of a fit, closer together towards the ends."""
    return [
        (low + high) / 2 - (high - low) / 2 * math.cos(math.pi * k / (total - 1))
        for k in range(total)
    ]


def _horner(coefficients: Sequence[float], s: float) -> float:
    """Return a polynomial at `s` in double precision."""
    value = 0.0
    for coefficient in reversed(coefficients):
        value = value * s + coefficient
    return value


@lru_cache(maxsize=200_000)
def _value(function: Callable[[mpmath.mpf], mpmath.mpf], s: float) -> float:
    """Return a function's value at `s`, computed with 40 digits."""
    with mpmath.workdps(40):
        return float(function(mpmath.mpf(s)))


def _weights(values: Sequence[float]) -> list[float]:
    """Weigh errors relative to the function.

    If it crosses zero, weigh none more than at a sixteenth of its size.
    """
    least = max(abs(v) for v in values) / 16
    crosses = min(values) < 0 < max(values) or any(v == 0 for v in values)
    return [max(abs(v), least) if crosses else abs(v) for v in values]


def _extrema(errors: Sequence[float], count: int) -> list[int]:
    """Return `count` places with alternating signs: the largest error of each run, the largest runs kept."""
    runs: list[int] = []
    for k, e in enumerate(errors):
        if runs and (e >= 0) == (errors[runs[-1]] >= 0):
            if abs(e) > abs(errors[runs[-1]]):
                runs[-1] = k
        else:
            runs.append(k)
    while len(runs) > count:
        runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
    if len(runs) < count:  # too few sign changes to exchange: restart from evenly spaced places
        runs = [round(k * (len(errors) - 1) / (count - 1)) for k in range(count)]
    return runs


def _measure(
    function: Callable[[mpmath.mpf], mpmath.mpf],
    coefficients: Sequence[float],
    low: float,
    high: float,
    absolute: bool,
) -> float:
    """Return the error at 1000 float32 points that the fit did not use."""
    points = [single(low + (high - low) * (k + 0.37) / 1000) for k in range(1000)]
    values = [_value(function, s) for s in points]
    weights = [1.0] * len(values) if absolute else _weights(values)
    return max(
        abs(evaluate(coefficients, s) - v) / w
        for s, v, w in zip(points, values, weights, strict=True)
    )


Parity = Literal["odd", "even", "none"]


def parity(function: Callable[[mpmath.mpf], mpmath.mpf], low: float, high: float) -> Parity:
    """Return the symmetry of f(x) - f(0) on an interval around 0."""
    if low >= 0 or high <= 0:
        return "none"
    with mpmath.workdps(40):
        constant = function(mpmath.mpf(0))
        reach = min(-low, high)
        pairs = [
            (
                function(mpmath.mpf(reach) * k / 7) - constant,
                function(-mpmath.mpf(reach) * k / 7) - constant,
            )
            for k in range(1, 8)
        ]
        size = max(abs(a) for a, _ in pairs)
        if all(abs(a + b) < size * mpmath.mpf(10) ** -25 for a, b in pairs):
            return "odd"
        if all(abs(a - b) < size * mpmath.mpf(10) ** -25 for a, b in pairs):
            return "even"
    return "none"
