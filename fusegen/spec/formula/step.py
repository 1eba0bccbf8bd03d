"""The formulas of a chain, inline or of an op: the names in them, and whether they make sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sympy as sp

from fusegen.atoms import ROW_FUNCTIONS, PartOf, RowMax, RowShift, RowSum
from fusegen.atoms import constants as formula_constants
from fusegen.atoms.constants import number
from fusegen.atoms.halves import HalfOf
from fusegen.base.errors import nearest
from fusegen.ops import Op, RefusedError, call
from fusegen.program import Kind, kind_of_formula
from fusegen.spec.bind import Bound
from fusegen.spec.dims import DimError, are_dims, check_dim, dims_in_order
from fusegen.spec.formula import parser as formula
from fusegen.spec.formula.of_operand import start_of_formula
from fusegen.spec.formula.of_parts import (
    are_alternating,
    dim_of_parts,
    names_of_parts,
    op_of_parts,
)
from fusegen.spec.model import INPUT, NO_PART, Ref
from fusegen.spec.scope import Names
from fusegen.spec.yaml import Place

__all__ = ["KEYS", "InlineFormula", "check_op", "read_formula"]

_X = sp.Symbol("x", real=True)
#: What a step with a formula may give.
KEYS = ("formula", "dim", "parts", "of", "alternating", "name")

#: The attribute with the dims that a formula's row functions reduce over.
Dims = Mapping[str, int | tuple[int, ...]]


@dataclass(frozen=True)
class InlineFormula:
    """A formula of a step.

    Args:
        expr: its expression.
        text: the formula, in one line.
        refs: its names, in order of first mention.
        dims: its `dim`.
        op: if it is of the parts of x, the op that stands for it.
        parts: the names of these.
        start: the operand that stands for x in it, if it is of operands alone.
    """

    expr: sp.Expr
    text: str
    refs: Mapping[str, Ref]
    dims: Dims
    op: Op | None = None
    parts: tuple[str, ...] = ()
    start: str = ""


def read_formula(names: Names, place: Place, given: Any) -> InlineFormula:
    """Return an inline formula.

    Args:
        names: the spec's names.
        place: the step's place in the spec.
        given: what follows `expr:`: the formula, or a mapping with it, a `dim` and the names of x's parts.

    Raises:
        SpecError: if it is not a formula, or cannot be a step of a chain.
    """
    keys = given if isinstance(given, dict) else {"formula": given}
    if not isinstance(keys.get("formula"), str):
        raise names.document.error(
            place, 'expr takes a formula in quotes: - expr: "x * sigmoid(x)"'
        )
    for key in keys:
        if key not in KEYS:
            near = nearest(str(key), KEYS)
            raise names.document.error((*place, key), f"expr has no {str(key)[:64]!r}{near}")
    if "alternating" in keys and "parts" not in keys:
        message = "'alternating' says where two parts of x are: name them, as in parts: [gate, up]"
        raise names.document.error((*place, "alternating"), message)
    text = " ".join(keys["formula"].split()).replace('"', "'")  # goes into docstrings
    known = [*names.operands, *names.values, *names.of_type("float")]
    own: tuple[str, ...] = ("x",)
    parts: tuple[str, ...] = ()
    if "parts" in keys:
        parts = names_of_parts(names, place, keys["parts"])
        own = tuple(name for name in parts if name != NO_PART and name not in names.values)
        said = f"the parts of x are called {', '.join(parts[:-1])} and {parts[-1]}"
        names = replace(names, unnamed={**names.unnamed, "x": said})
    symbols = {name: sp.Symbol(name, real=True) for name in (*own, *known)}
    masks = [name for name in known if name in names.operands and names.operands[name].mask]
    try:
        read = formula.read(text, symbols | {n: sp.Ne(symbols[n], 0) for n in masks}, names)
    except formula.FormulaError as error:
        message = f"in the formula {_around(text, error.column)!r}, column {error.column}: {error.message}"
        raise names.document.error(place, message) from None
    expr, used = read.expr, [name for name in read.names if name not in own]
    for name in read.names:  # torch's result would still have the shape of the operand that cancels
        if symbols[name] not in expr.free_symbols:
            message = f"the formula {_short(text)!r} does not depend on {name}: leave it out"
            raise names.document.error(place, message)
    start = ""
    if not {*own, *names.values, INPUT} & {*read.names}:
        start = start_of_formula(names, place, _short(text), used)
        expr = expr.xreplace({symbols[start]: _X})
        used.remove(start)
    refs = {name: Ref(name, name in names.arguments, is_step=name in names.values) for name in used}
    kinds = {symbols[name]: names.kind(name) & Kind.FULL for name in refs if name in names.operands}
    kinds |= {symbols[name]: Kind.FULL for name in names.values}
    wrong = _problem(expr, {**kinds, **{symbols[name]: Kind.FULL for name in own}})
    if wrong:
        raise names.document.error(place, f"the formula {_short(text)!r} {wrong}")
    if not parts:
        return InlineFormula(expr, text, refs, _dims(names, place, expr, keys), start=start)
    dim = dim_of_parts(names, place, expr, keys.get("dim"))
    if isinstance(keys["parts"], dict):  # they are cut before
        return InlineFormula(expr, text, refs, {})
    alternating = are_alternating(names, place, keys.get("alternating", False), len(parts))
    dims: Dims = {"dim": dim, "alternating": alternating}
    op = op_of_parts(expr, parts, refs, dim, alternating=alternating)
    return InlineFormula(expr, text, refs, dims, op, parts)


def _dims(names: Names, place: Place, expr: sp.Expr, keys: Mapping[str, Any]) -> Dims:
    """Return the `dim` of a formula, if it has one."""
    dim = keys.get("dim")
    if dim is None:
        return {}
    here = (*place, "dim")
    if not any(isinstance(part, ROW_FUNCTIONS) for part in formula_constants.parts(expr)):
        message = "expr has a dim, but its formula reduces nothing; leave the dim out"
        raise names.document.error(here, message)
    try:
        if are_dims(dim):
            return {"dim": dims_in_order("dim", dim, names.dims)}
        if isinstance(dim, bool) or not isinstance(dim, int):
            message = f"'dim' of expr must be a dim, or a list of dims, not {dim!r}"
            raise names.document.error(here, message)
        check_dim("dim", dim, names.dims)
    except DimError as error:
        raise names.document.error(here, str(error)) from None
    return {"dim": dim}


def check_op(names: Names, place: Place, op: Op, bound: Bound) -> None:
    """Refuse operands and attributes that make an op's formula meaningless, such as `div: 0`.

    Raises:
        SpecError: if the formula is infinite, or does not depend on the activation or an operand.
    """
    operands: dict[str, Any] = {name: sp.Symbol(name, real=True) for name in op.operands}
    operands |= {name: _value(name, value) for name, value in bound.operands.items()}
    attributes = {name: _value(name, value) for name, value in bound.attributes.items()}
    for name in op.optional.keys() - bound.operands.keys():
        del operands[name]
    try:
        expr = call(op, _X, operands, attributes)
    except RefusedError as error:
        raise names.document.error(place, f"{op.name} {error}") from None
    wrong = formula_constants.problem(expr)
    if wrong:
        raise names.document.error(place, f"{_short(bound.text)} has {wrong}")
    tensors = {n: v.name for n, v in bound.operands.items() if isinstance(v, Ref)}
    for symbol, name in {_X: "x", **{operands[n]: name for n, name in tensors.items()}}.items():
        if symbol not in expr.free_symbols:
            raise names.document.error(place, f"{_short(bound.text)} does not depend on {name}")


def _value(name: str, value: Any) -> Any:
    """Return the value of an operand or attribute in a formula."""
    if isinstance(value, Ref):
        return sp.Symbol(name, real=True)
    return number(value) if isinstance(value, float) else value


def _problem(expr: sp.Expr, kinds: Mapping[sp.Symbol, Kind]) -> str | None:
    """Return why a formula cannot be a step of a chain, or None if it can."""

    def known(symbol: sp.Symbol) -> Kind:
        return kinds.get(symbol, Kind.SCALAR)

    for part in formula_constants.parts(expr):
        if not isinstance(part, RowSum | RowMax | RowShift | PartOf):
            continue
        if Kind.COL not in kind_of_formula(part.args[0], known):
            taken = "a half" if isinstance(part, HalfOf) else "a part"
            does = f"takes {taken} of" if isinstance(part, PartOf) else "reduces"
            return f"{does} what is the same in every column: nothing of it runs along a row"
    return None


def _around(text: str, column: int) -> str:
    """Return the part of a formula around a mistake, from the beginning of a word if there is one near."""
    start, end = max(column - 30, 0), column + 30
    near = max(start - 15, 0)
    word = text.rfind(" ", near, start) + 1
    return text[word or (start if near else 0) : end]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
