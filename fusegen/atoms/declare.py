"""What an atom is: one declaration of everything that the rest of fusegen asks of a function.

The parser, the intervals, the printer of C++, the polynomials and the references look a function up in
`ATOMS`; none has a list of its own. So a new atom is one declaration, in any file that is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeVar

import sympy as sp

__all__ = ["ATOMS", "Atom", "Cancels", "Pointwise", "Shape"]

#: An expression of an atom's argument, such as its derivative.
Form = Callable[..., sp.Expr]
_Function = TypeVar("_Function", bound=type[sp.Basic])

#: The declaration of each pointwise function, of sympy's own too.
ATOMS: dict[type[sp.Basic], Atom] = {}


class Shape(Enum):
    """How a function runs, where that gives its interval from its values at the ends."""

    GROWING = "grows with its argument"
    FALLING = "falls with its argument"
    BELL = "is symmetric, largest at 0, and falls from there"
    VALLEY = "is symmetric, least at 0, and grows from there"


@dataclass(frozen=True)
class Cancels:
    """What stands for sums that lose digits, or all of them, where an atom f saturates or is near 0.

    Each form is a function of u, the atom's argument.

    Args:
        plus: what f(u) + number is, by number.
        mirrored: what f(u) - f(-u) is.
        less_argument: what f(u) - u is.
        square_less_one: what f(u)^2 - 1 is.
        after_one: what f(1 + u) is.
    """

    plus: Mapping[Any, Form] = field(default_factory=lambda: MappingProxyType({}))
    mirrored: Form | None = None
    less_argument: Form | None = None
    square_less_one: Form | None = None
    after_one: Form | None = None


@dataclass(frozen=True, kw_only=True)
class Atom:
    """The declaration of a pointwise function: decorate its class with it, or call it with sympy's function.

    Args:
        value: the function of mpmath's numbers, in mpmath's precision, at infinities too.
        torch: what it is by torch: a function of the torch module and the arguments. It may call torch's
            functions and tensors' methods, calculate and compare; `render/call_text.py` makes text of it.
        precise: the same with the last digits of float64, where `torch` loses some: what kernels are held
            against. By default `torch`.
        cpp: the C++ function to call, such as `Math::tanh` of elementary.h or `std::atan`, or an expression
            of the arguments `{0}`, `{1}`, …, which are of the scalar type `T`.
        derivative: the derivative in atoms, a function of the arguments; one for each argument, where there
            are several. A function of sympy's has its own.
        word: what formulas of a spec call it; None where they may not.
        shape: how it runs, if in one of these ways.
        bounds: the interval of all its values, where `shape` does not say it.
        smooth: the open intervals of its first argument on which it has all derivatives.
        calls: how many mathematical functions a kernel calls for it. 0: it is soon computed again, as
            arithmetic is.
        fitted: whether a polynomial is faster on a short interval.
        steep: whether it multiplies the rounding of its argument, as an exponential does. Of a sum, kernels
            call its version in `Math::OfSum`.
        exact: whether kernels compute it right to the last bit.
        cancels: what stands for sums with it that lose digits.
        composed: what it is of an argument that is another atom; None where it stays as it is.
    """

    value: Callable[..., Any]
    torch: Callable[..., Any]
    cpp: str
    precise: Callable[..., Any] | None = None
    derivative: Form | tuple[Form, ...] | None = None
    word: str | None = None
    shape: Shape | None = None
    bounds: tuple[float, float] = (-math.inf, math.inf)
    smooth: tuple[tuple[float, float], ...] = ((-math.inf, math.inf),)
    calls: int = 1
    fitted: bool = True
    steep: bool = False
    exact: bool = False
    cancels: Cancels | None = None
    composed: Callable[[sp.Expr], sp.Expr | None] = lambda _: None

    @property
    def source(self) -> str:
        """The file of the declaration."""
        return self.torch.__code__.co_filename

    @property
    def truth(self) -> Callable[..., Any]:
        """What kernels are held against: a function of the torch module and the arguments."""
        return self.precise or self.torch

    def __call__(self, function: _Function) -> _Function:
        """Declare a function.

        Raises:
            ValueError: another function has its word.
        """
        for other, atom in ATOMS.items():
            same = (other.__module__, other.__name__) == (function.__module__, function.__name__)
            if self.word and atom.word == self.word and not same:
                raise ValueError(f"formulas call {other.__module__}.{other.__name__} {self.word!r}")
        ATOMS[function] = self
        return function

    def slope(self, argument: int, args: tuple[sp.Expr, ...]) -> sp.Expr:
        """Return the derivative by an argument, counted from 0."""
        assert self.derivative is not None, "a function of sympy's has a derivative of its own"
        forms = self.derivative if isinstance(self.derivative, tuple) else (self.derivative,)
        return sp.sympify(forms[argument](*args))


class Pointwise(sp.Function):
    """A function of real numbers that sympy never expands; its derivative is the declared one.

    A subclass says with `nargs` how many arguments it takes.
    """

    is_real = True

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        """Return the derivative by an argument, counted from 1."""
        return ATOMS[self.func].slope(argindex - 1, self.args)
