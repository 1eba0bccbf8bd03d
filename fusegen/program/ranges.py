"""Which values can reach each node: interval arithmetic over a program.

What is proven to act nowhere disappears: hardtanh(-1, 1) after gelu(tanh(.)) never clips. The intervals
also reach the approximations (`lower/polynomials/of_formulas.py`): erf on [-1, 1] is a short polynomial.
(Moore, Interval Analysis, 1966.) NaN is outside of every interval; it passes through what remains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import mpmath
import sympy as sp
from sympy.core.relational import Relational

from fusegen import atoms
from fusegen.atoms.declare import ATOMS, Atom, Shape
from fusegen.atoms.values import constant
from fusegen.program.builder import Builder
from fusegen.program.ir import Input, Map, Program, Reduce, Take, Value, Whole

_INFINITE = math.inf
#: A comparison counts as settled only by this margin, relatively: computed values may overstep their
#: interval by a rounding error, never by so much.
_MARGIN = 1e-3


@dataclass(frozen=True)
class Interval:
    """All numbers from `low` to `high`, both included."""

    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __or__(self, other: Interval) -> Interval:
        return Interval(min(self.low, other.low), max(self.high, other.high))

    def __str__(self) -> str:
        return f"[{self.low:.4g}, {self.high:.4g}]"


ALL = Interval(-_INFINITE, _INFINITE)


def ranges(program: Program) -> dict[Value, Interval]:
    """Return the interval of every value of a program."""
    found: dict[Value, Interval] = {}
    by_symbol: dict[sp.Symbol, Interval] = {}
    for value in program.nodes():
        if isinstance(value, Map):
            found[value] = interval(value.expr, by_symbol)
        elif isinstance(value, Reduce):
            found[value] = _reduced(value, found[value.arg])
        elif isinstance(value, Take):
            found[value] = found[value.arg]
        else:
            found[value] = _given(value)
        by_symbol[value.symbol] = found[value]
    return found


def _given(value: Value) -> Interval:
    if isinstance(value, Input) and value.source == "random":
        return Interval(0.0, 1.0)
    if isinstance(value, Input) and value.source == "extent":
        return Interval(1.0, _INFINITE)
    return ALL


def _reduced(value: Reduce, of: Interval) -> Interval:
    if value.op == "max":
        return of
    return Interval(0.0 if of.low >= 0 else -_INFINITE, 0.0 if of.high <= 0 else _INFINITE)


def interval(expr: sp.Basic, known: Mapping[sp.Symbol, Interval]) -> Interval:
    """Return an interval that holds every value of an expression.

    Args:
        expr: over symbols in `known`; a function it does not know may be anything.
        known: the interval of each symbol.
    """
    if expr.is_Symbol:
        return known.get(expr, ALL)
    if isinstance(expr, atoms.Special):
        return ALL
    if not expr.free_symbols:
        point = constant(expr)
        return ALL if point is None else Interval(point, point)
    if isinstance(expr, sp.Piecewise):
        return _selected(expr, known)
    found = _of_parts(expr, known)
    # Where an end is infinity - infinity, anything may come out.
    return ALL if math.isnan(found.low) or math.isnan(found.high) else found


def _of_parts(expr: sp.Basic, known: Mapping[sp.Symbol, Interval]) -> Interval:
    args = [interval(arg, known) for arg in expr.args]
    if expr.is_Add:
        return Interval(sum(a.low for a in args), sum(a.high for a in args))
    if expr.is_Mul:
        product = args[0]
        for factor in args[1:]:
            product = _product(product, factor)
        return product
    if expr.is_Pow:
        return _power(args[0], expr.exp)
    atom = ATOMS.get(expr.func)
    if atom is None:
        return ALL
    return _shaped(atom, args[0]) if atom.shape else Interval(*atom.bounds)


def _shaped(atom: Atom, arg: Interval) -> Interval:
    """Return the interval of a function that runs in a known way, from its values at the ends."""
    if atom.shape in (Shape.GROWING, Shape.FALLING):
        ends = _at(atom.value, arg.low), _at(atom.value, arg.high)
        return Interval(*(ends if atom.shape is Shape.GROWING else ends[::-1]))
    far = max(abs(arg.low), abs(arg.high))
    near = 0.0 if arg.low <= 0 <= arg.high else min(abs(arg.low), abs(arg.high))
    ends = _at(atom.value, far), _at(atom.value, near)
    return Interval(*(ends if atom.shape is Shape.BELL else ends[::-1]))


def _product(a: Interval, b: Interval) -> Interval:
    corners = [0.0 if 0.0 in (x, y) else x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(min(corners), max(corners))


def _power(base: Interval, exponent: sp.Expr) -> Interval:
    n = None if exponent.free_symbols else constant(exponent)
    if n is None:
        return ALL
    if n < 0:
        below = _power(base, -exponent)
        if below.low < 0 < below.high:
            return ALL
        ends = [
            math.copysign(_INFINITE, below.low + below.high) if e == 0 else 1 / e
            for e in (below.low, below.high)
        ]
        return Interval(min(ends), max(ends))
    if not n.is_integer():
        return Interval(max(base.low, 0.0) ** n, max(base.high, 0.0) ** n)
    ends = [_raised(base.low, n), _raised(base.high, n)]
    if n % 2 == 0 and base.low < 0 < base.high:
        ends.append(0.0)
    return Interval(min(ends), max(ends))


def _raised(x: float, n: float) -> float:
    try:
        return float(x**n)
    except OverflowError:
        return math.copysign(_INFINITE, x if n % 2 else 1.0)


def _at(function: Callable[[mpmath.mpf], mpmath.mpf], x: float) -> float:
    with mpmath.workdps(20):
        return float(function(mpmath.mpf(x)))


def _selected(expr: sp.Piecewise, known: Mapping[sp.Symbol, Interval]) -> Interval:
    """Each branch counts where its condition may hold and none before it must; NaN is in no interval."""
    joint: Interval | None = None
    rest = dict(known)
    for value, condition in expr.args:
        if value == atoms.undefined or (condition is not sp.true and never(condition, rest)):
            continue
        branch = interval(value, _narrowed(rest, condition, True))
        joint = branch if joint is None else joint | branch
        rest = _narrowed(rest, condition, False)
    return joint or ALL


def _narrowed(
    known: Mapping[sp.Symbol, Interval], condition: sp.Basic, holds: bool
) -> dict[sp.Symbol, Interval]:
    """Return the intervals where `symbol <= number` (or >=, <, >) holds, or where it does not."""
    result = dict(known)
    if not isinstance(condition, Relational) or condition.rel_op not in ("<=", "<", ">=", ">"):
        return result
    symbol, bound = condition.lhs, condition.rhs
    limit = None if bound.free_symbols else constant(bound)
    if not symbol.is_Symbol or limit is None:
        return result
    before = result.get(symbol, ALL)
    below = (condition.rel_op in ("<=", "<")) == holds
    cut = (
        Interval(before.low, min(before.high, limit))
        if below
        else Interval(max(before.low, limit), before.high)
    )
    if cut.low <= cut.high:
        result[symbol] = cut
    return result


def never(condition: sp.Basic, known: Mapping[sp.Symbol, Interval]) -> bool:
    """Return whether a condition is false for all values, NaN included."""
    if isinstance(condition, sp.And):
        return any(never(c, known) for c in condition.args)
    if isinstance(condition, sp.Or):
        return all(never(c, known) for c in condition.args)
    if not isinstance(condition, Relational):
        return False
    left, right = interval(condition.lhs, known), interval(condition.rhs, known)
    margin = _MARGIN * max(
        (abs(e) for e in (left.low, left.high, right.low, right.high) if math.isfinite(e)),
        default=0.0,
    )
    above, below = left.low - right.high > margin, right.low - left.high > margin
    return {"<=": above, "<": above, ">=": below, ">": below, "==": above or below}.get(
        condition.rel_op, False
    )


def _always(condition: sp.Basic, known: Mapping[sp.Symbol, Interval]) -> bool:
    """Return whether a comparison is true for all values but NaN."""
    return isinstance(condition, Relational) and never(condition.negated, known)


def simplify(program: Program) -> Program:
    """Return the program without what can act on no value, and with a note of each thing left out."""
    found = ranges(program)
    known = {value.symbol: at for value, at in found.items()}
    builder = Builder()
    builder.adopt(program.inputs)
    replaced: dict[Value, Value] = {i: i for i in program.inputs}
    notes = list(program.notes)
    for value in program.nodes():
        if isinstance(value, Input):
            if value not in replaced:
                builder.adopt([value])
                replaced[value] = value
        elif isinstance(value, Reduce):
            arg = replaced[value.arg]
            replaced[value] = builder.reduce(
                value.name, value.op, arg, value.kind, shift_invariant=value.shift_invariant
            )
        elif isinstance(value, Take):
            replaced[value] = builder.take(replaced[value.arg], value.index)
        elif isinstance(value, Map):
            expr = _without_idle_branches(value.expr, known)
            if expr != value.expr:
                reached = ", ".join(f"{a.name} in {found[a]}" for a in value.args)
                left = "is the identity" if expr.is_Symbol else f"is {expr}"
                notes.append(f"{value.name} {left} here: {reached}")
            renamed = expr.xreplace({a.symbol: replaced[a].symbol for a in value.args})
            whole = _replaced_whole(value.whole, replaced)
            replaced[value] = builder.map(value.name, renamed, value.note, whole)
    outputs = {n: replace(o, value=replaced[o.value]) for n, o in program.outputs.items()}
    saved = tuple(replaced[v] for v in program.saved)
    return replace(program, outputs=outputs, saved=saved, notes=tuple(notes))


def _replaced_whole(whole: Whole | None, replaced: Mapping[Value, Value]) -> Whole | None:
    """Return the row that a value is an element of, in terms of what the row's values became."""
    now = {value.symbol: new for value, new in replaced.items()}
    row = whole and now.get(sp.Symbol(whole.name, real=True))
    if whole is None or not isinstance(row, Map):
        return None
    pairs = ((now[of_row], now[element]) for of_row, element in whole.elements)
    return Whole(
        row.name, whole.index, tuple((of_row.symbol, element.symbol) for of_row, element in pairs)
    )


def _without_idle_branches(expr: sp.Expr, known: Mapping[sp.Symbol, Interval]) -> sp.Expr:
    if not expr.has(sp.Piecewise):
        return expr
    if isinstance(expr, sp.Piecewise):
        kept = [
            (_without_idle_branches(value, known), condition)
            for value, condition in expr.args
            if condition is sp.true or not never(condition, known)
        ]
        if len(kept) > 1 and kept[-1][0] == atoms.undefined and _always(kept[-2][1], known):
            kept[-2:] = [(kept[-2][0], sp.true)]  # where a NaN is, it passes through what remains
        return kept[0][0] if kept[0][1] is sp.true else sp.Piecewise(*kept, evaluate=False)
    walked = expr.func(*(_without_idle_branches(a, known) for a in expr.args))
    assert isinstance(walked, sp.Expr)
    return walked
