"""A formula of the two halves of one tensor: `expr: {formula: "up * gelu(gate)", halves: [gate, up]}`.

It becomes an op that only this step has, whose x is the first half and whose operand is the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy as sp

from fusegen.atoms import HALF_FUNCTIONS, ROW_FUNCTIONS
from fusegen.atoms.constants import parts
from fusegen.ops import Op
from fusegen.spec.dims import DimError, check_dim
from fusegen.spec.model import EXPR, Ref
from fusegen.spec.names import problem
from fusegen.spec.scope import Names, shown
from fusegen.spec.yaml import Place

__all__ = ["are_alternating", "dim_of_halves", "names_of_halves", "op_of_halves"]

#: The names of the first and the second half.
Halves = tuple[str, str]


def names_of_halves(names: Names, place: Place, given: Any) -> Halves:
    """Return the names that a formula gives to the two halves.

    Raises:
        SpecError: if they are not two names, or one is taken.
    """
    here = (*place, "halves")
    if not isinstance(given, list) or len(given) != 2 or not all(isinstance(n, str) for n in given):
        message = (
            f"'halves' of expr must be two names, of the first half and the second, not {shown(given)}: "
            "halves: [gate, up]"
        )
        raise names.document.error(here, message)
    first, second = given
    owners = {**dict.fromkeys(names.arguments, "an argument")}
    owners |= dict.fromkeys(names.operands, "an operand") | dict.fromkeys(names.values, "a step")
    for name in given:
        wrong = problem(name)
        if wrong is None and name in owners:
            wrong = f"{name!r} is already the name of {owners[name]}: choose another for this half"
        if wrong is None and first == second:
            wrong = f"both halves are called {first!r}: give them two names"
        if wrong:
            raise names.document.error(here, wrong)
    return first, second


def dim_of_halves(names: Names, place: Place, expr: sp.Expr, dim: Any) -> int:
    """Return the dim that a formula's halves are along; -1 if the step gives none.

    Raises:
        SpecError: if the formula takes a row as a whole, or the activation has no such dim.
    """
    if any(isinstance(part, (*ROW_FUNCTIONS, *HALF_FUNCTIONS)) for part in parts(expr)):
        message = (
            "a formula of halves computes each element from two, and this one takes a row as a whole: make a "
            "step of its own of that, after it"
        )
        raise names.document.error(place, message)
    if dim is None:
        return -1
    here = (*place, "dim")
    if isinstance(dim, bool) or not isinstance(dim, int):
        message = f"'dim' of expr must be the dim of the halves, not {shown(dim)}"
        raise names.document.error(here, message)
    try:
        check_dim("dim", dim, names.dims, "the halves of [rows, cols] are along the last dim")
    except DimError as error:
        raise names.document.error(here, str(error)) from None
    return dim


def are_alternating(names: Names, place: Place, given: Any) -> bool:
    """Return whether a formula's halves are the even and the odd columns.

    Raises:
        SpecError: if that is neither true nor false.
    """
    if not isinstance(given, bool):
        message = f"'alternating' of expr must be true or false, not {shown(given)}"
        raise names.document.error((*place, "alternating"), message)
    return given


def op_of_halves(
    expr: sp.Expr, halves: Halves, refs: Mapping[str, Ref], dim: int, *, alternating: bool
) -> Op:
    """Return a formula as the op of its step.

    Args:
        expr: the formula, over the names of the halves and of other values.
        halves: the names of the halves.
        refs: the other values that it names.
        dim: the dim of the halves.
        alternating: whether they are the even and the odd columns.
    """
    first, second = halves
    slots = (second, *refs)

    def formula(x: sp.Expr, *values: sp.Expr, dim: int, alternating: bool) -> sp.Expr:
        del dim, alternating  # which say where the halves are
        given = dict(zip((first, *slots), (x, *values), strict=True))
        return expr.xreplace({sp.Symbol(name, real=True): value for name, value in given.items()})

    formula.__doc__ = f"of two halves, {first} and {second}"
    return Op(
        name=EXPR,
        formula=formula,
        operands=dict.fromkeys(slots),
        attributes={"dim": dim, "alternating": alternating},
        required=frozenset(),
        torch="",
        halves=second,
        of_halves=("dim", "alternating"),
    )
