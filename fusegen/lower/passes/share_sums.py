"""Computes sums over rows from one another if they differ by a factor that all rows share.

Σ f a = f Σa if f belongs to a column. The backward pass of a batch norm sums g, g (x - m) s, -g w s and -g w
(x - m) s³ / 2 over the rows, where each column has a scale s, a mean m and a weight w. The third sum is the
first times -w s; the fourth is the second times -w s² / 2. So two sums are enough. The rounding of a factor
is an error of the original sum too, so the bound ε Σ|f a| still holds (Higham, Accuracy and Stability of
Numerical Algorithms, 2002, section 4.2).

Sums that are results remain sums. The others are computed from them, in the part of the program that waits
for them (`cut_at_sums.py`).
"""

from __future__ import annotations

import sympy as sp

from fusegen.lower.part import Part, Parts
from fusegen.program import Kind, Map, Reduce, Value, depths
from fusegen.program.builder import Builder
from fusegen.program.rebuild import rebuilt


def share_sums(part: Part) -> Parts:
    """Replace sums over rows by multiples of other sums."""
    program, given = part.program, part.given
    waits = depths(program, given, lambda v: isinstance(v, Reduce))
    sums = [v for v in waits if isinstance(v, Reduce) and _over_rows(v) and v not in given]
    results = {*(o.value for o in program.outputs.values()), *program.saved}
    builder = Builder()
    builder.adopt(program.nodes())
    bases = [v for v in sums if v in results]
    replaced: dict[Value, Value] = {}
    names: dict[Value, str] = {}
    for value in (v for v in sums if v not in results):
        for base in bases:
            factor = _factor(value, base, builder) if waits[base] == waits[value] else None
            if factor is not None:
                note = f"{base.name} times what its rows share"
                expr = factor * base.symbol
                replaced[value] = builder.map(f"{value.name}_shared", expr, note)
                if base.name in program.outputs:  # the sum is handed on too, beside the result
                    names[base] = f"{base.name}_sum"
                break
        else:
            bases.append(value)
    return part.having(rebuilt(program, replaced, given, names) if replaced else program)


def _over_rows(value: Reduce) -> bool:
    """Whether a value is a sum over all rows, with one result per column."""
    return value.op == "sum" and value.kind == Kind.COL and not value.sample


def _factor(value: Reduce, base: Reduce, builder: Builder) -> sp.Expr | None:
    """Return the ratio of two sums' terms, if it does not vary along the rows."""
    if value.kind != base.kind:
        return None
    powers = _powers(value.arg.symbol, value.kind, builder)
    for part, power in _powers(base.arg.symbol, value.kind, builder).items():
        powers[part] = powers.get(part, sp.Integer(0)) - power
    left = {part: power for part, power in powers.items() if power != 0}
    varying = (builder.kind(part) | builder.kind(power) for part, power in left.items())
    if any(kind & ~value.kind for kind in varying):  # exp(x) is a power of a number
        return None
    return sp.Mul(*(part**power for part, power in left.items()))


def _powers(expr: sp.Expr, kind: Kind, builder: Builder) -> dict[sp.Expr, sp.Expr]:
    """Return the factors of a product with their exponents, expanding nodes that are products."""
    found: dict[sp.Expr, sp.Expr] = {}
    for part, power in expr.as_powers_dict().items():
        value = builder.value(part) if part.is_Symbol else None
        within = isinstance(value, Map) and (value.expr.is_Mul or value.expr.is_Symbol)
        if isinstance(value, Map) and within and power.is_Integer and value.kind & ~kind:
            inner = {p: n * power for p, n in _powers(value.expr, kind, builder).items()}
        else:
            inner = {part: power}
        for factor, exponent in inner.items():
            found[factor] = found.get(factor, sp.Integer(0)) + exponent
    return found
