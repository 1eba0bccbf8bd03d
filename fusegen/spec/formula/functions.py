"""The functions of formulas: pointwise functions, and functions of a whole row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import sympy as sp

from fusegen import atoms
from fusegen.atoms import ATOMS
from fusegen.atoms.constants import value_of
from fusegen.atoms.special import zero
from fusegen.atoms.values import folded
from fusegen.ops import Op, call, registry
from fusegen.spec.formula.as_written import apart, function_of, power_of

__all__ = ["Word", "functions", "of_op"]


def of_op(
    op: Op, x: sp.Expr, operands: Mapping[str, sp.Expr], attributes: Mapping[str, Any]
) -> sp.Expr:
    """Return the value of an op as a part of a formula.

    The value gets a name (`let`). Otherwise sympy would move `1 / norm(x)` into the branches of the norm, one
    of which is 1 / 0. The arguments get names too, so that they become nodes, as the values of steps are. A
    maximum must be subtracted from exactly its own argument, and sympy would move a condition on the argument
    into the branches of a `where`.
    """
    x = _named("argument", x)
    given: dict[str, sp.Expr] = {}
    for slot, value in operands.items():
        given[slot] = reduce(apart, (x, *given.values()), _named(slot, value))
    value = call(op, x, given, attributes)
    if value == 0 and 0 in given.values():  # mul(x, 0), which is NaN where x is infinite
        value = zero * x
    value = value if value.free_symbols else folded(value)
    return value if value_of(value) is not None else atoms.let(op.name, value)


def _named(name: str, value: sp.Expr) -> sp.Expr:
    """Return an argument of an op with a name; numbers, symbols and named parts need none."""
    plain = value.is_Symbol or isinstance(value, atoms.Let) or value_of(value) is not None
    return value if plain else atoms.let(name, value)


def _of_rows(name: str, **attributes: Any) -> Callable[[sp.Expr], sp.Expr]:
    """Return an op as a function of a formula's part."""
    return lambda x: of_op(registry()[name], x, {}, attributes)


#: Functions of a row, of one argument each.
_ROWS: dict[str, Any] = {
    "amax": atoms.row_max,
    "amin": _of_rows("amin", dim=-1),
    "log_softmax": _of_rows("log_softmax"),
    "logsumexp": _of_rows("logsumexp", dim=-1),
    "max": atoms.row_max,
    "mean": atoms.row_mean,
    "min": _of_rows("amin", dim=-1),
    "norm": _of_rows("norm", dim=-1),
    "softmax": _of_rows("softmax"),
    "std": _of_rows("std", dim=-1),
    "sum": atoms.row_sum,
    "var": _of_rows("var", dim=-1),
}
#: Powers that have a word of their own.
_POWERS: dict[str, Any] = {
    "rsqrt": lambda x: power_of(x, sp.Rational(-1, 2)),
    "sqrt": lambda x: power_of(x, sp.Rational(1, 2)),
}


@dataclass(frozen=True)
class Word:
    """A function that formulas may call.

    Args:
        function: makes an expression of the arguments.
        arity: how many arguments it takes.
        pointwise: whether it is an element's alone, so that of a constant it is one.
    """

    function: Callable[..., sp.Expr]
    arity: int
    pointwise: bool


def functions() -> dict[str, Word]:
    """Return what formulas may call, by name: the atoms that are declared by now, among others."""
    found = {
        **{name: Word(function, 1, False) for name, function in _ROWS.items()},
        **{name: Word(function, 1, True) for name, function in _POWERS.items()},
        "where": Word(atoms.where, 3, False),
    }
    for function, atom in ATOMS.items():
        if atom.word:
            arity = int(min(function.nargs))
            of_one = partial(function_of, function) if arity == 1 else function
            found[atom.word] = Word(of_one, arity, True)
    return dict(sorted(found.items()))
