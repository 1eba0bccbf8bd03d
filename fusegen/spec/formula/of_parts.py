"""A formula of the parts of one tensor: `expr: {formula: "up * gelu(gate)", parts: [gate, up]}`.

It becomes an op that only this step has, whose x is the first part and whose first operands are the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from fusegen.atoms import HALF_FUNCTIONS, ROW_FUNCTIONS
from fusegen.atoms.constants import parts
from fusegen.atoms.halves import MOST_PARTS
from fusegen.ops import Op
from fusegen.spec.dims import DimError, check_dim
from fusegen.spec.model import EXPR, NO_PART, Ref
from fusegen.spec.names import problem
from fusegen.spec.scope import Names, shown
from fusegen.spec.yaml import Place

__all__ = ["are_alternating", "checked_dim", "dim_of_parts", "names_of_parts", "op_of_parts"]


def names_of_parts(names: Names, place: Place, given: Any) -> tuple[str, ...]:
    """Return the names that a formula gives to the parts.

    Raises:
        SpecError: if they are not two names or more.
    """
    here = (*place, "parts")
    sized = isinstance(given, dict)
    given = [*given] if sized else given
    listed = isinstance(given, list) and all(isinstance(name, str) for name in given)
    if not listed or not 2 <= len(given) <= MOST_PARTS:
        message = (
            f"'parts' of expr must be two to {MOST_PARTS} names, of the parts of x in their order, not "
            f"{shown(given)}: parts: [gate, up], or with their sizes, parts: {{q: 64, k: 16}}"
        )
        raise names.document.error(here, message)
    for index, name in enumerate(given):
        wrong = problem(name)
        if wrong is None and name in given[:index] and name != NO_PART:
            wrong = f"two parts are called {name!r}: give them two names"
        if sized and name.startswith(NO_PART):
            wrong = None if name.isidentifier() else wrong
        if wrong:
            raise names.document.error(here, wrong)
    return tuple(given)


def dim_of_parts(names: Names, place: Place, expr: sp.Expr, dim: Any) -> int:
    """Return the dim that a formula's parts are along; -1 if the step gives none.

    Raises:
        SpecError: if the formula takes a row as a whole, or the activation has no such dim.
    """
    if any(isinstance(part, (*ROW_FUNCTIONS, *HALF_FUNCTIONS)) for part in parts(expr)):
        message = (
            "a formula of parts computes each element from one of each part, and this one takes a row as a "
            "whole: make a step of its own of that, after it"
        )
        raise names.document.error(place, message)
    return -1 if dim is None else checked_dim(names, place, dim)


def checked_dim(names: Names, place: Place, dim: Any) -> int:
    """Return the dim of a step's parts, as it is given.

    Raises:
        SpecError: it is no whole number, or the activation has no such dim.
    """
    here = (*place, "dim")
    if isinstance(dim, bool) or not isinstance(dim, int):
        message = f"'dim' of expr must be the dim of the parts, not {shown(dim)}"
        raise names.document.error(here, message)
    try:
        check_dim("dim", dim, names.dims, "the parts of [rows, cols] are along the last dim")
    except DimError as error:
        raise names.document.error(here, str(error)) from None
    return dim


def are_alternating(names: Names, place: Place, given: Any, count: int) -> bool:
    """Return whether a formula's two parts are the even and the odd columns.

    Raises:
        SpecError: if that is neither true nor false, or there are more parts.
    """
    here = (*place, "alternating")
    if not isinstance(given, bool):
        message = f"'alternating' of expr must be true or false, not {shown(given)}"
        raise names.document.error(here, message)
    if given and count > 2:
        message = f"two parts may alternate by column, and these are {count}: leave it out"
        raise names.document.error(here, message)
    return given


def op_of_parts(
    expr: sp.Expr, named: Sequence[str], refs: Mapping[str, Ref], dim: int, *, alternating: bool
) -> Op:
    """Return a formula as the op of its step.

    Args:
        expr: the formula, over the names of the parts and of other values.
        named: the names of the parts.
        refs: the other values that it names.
        dim: the dim of the parts.
        alternating: whether they are the even and the odd columns.
    """
    first, *rest = named
    others = tuple(f"part_{n}" if name == NO_PART else name for n, name in enumerate(rest, 2))
    slots = (*others, *refs)

    def formula(x: sp.Expr, *values: sp.Expr, dim: int, alternating: bool) -> sp.Expr:
        del dim, alternating  # which say where the parts are
        given = dict(zip((first, *slots), (x, *values), strict=True))
        return expr.xreplace({sp.Symbol(name, real=True): value for name, value in given.items()})

    formula.__doc__ = f"of {len(named)} parts, {', '.join(named)}"
    return Op(
        name=EXPR,
        formula=formula,
        operands=dict.fromkeys(slots),
        attributes={"dim": dim, "alternating": alternating},
        required=frozenset(),
        torch="",
        parts=others,
        of_parts=("dim", "alternating"),
    )
