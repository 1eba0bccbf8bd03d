"""Drops terms from a sum that cancel exactly: x - mean(x), times factors that do not vary along the sum.

The backward pass of a layer norm sums a + r (x - m) over a row. Here m is the row's mean, and r is itself a
sum over the row. Σ r (x - m) = r (Σx - n m) = 0, so only Σa remains, and it need not wait for r.

In floating point the dropped term is not 0, but n r times the rounding error of m. The value from which the
sum is subtracted keeps that error, as in torch's own backward pass. In a forward pass with a second norm it
would be most of the error, so nothing is dropped there.

A term is dropped only if its factor waits longest, and only if a row is then read once less. Other terms may
cancel with one another, so their rounding must be in the sum too. If x contains an infinity or a NaN, so do r
and the remaining terms, because both depend on m.
"""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp

from fusegen.lower.part import Part, Parts
from fusegen.program import Map, Reduce, Value, depths
from fusegen.program.builder import Builder
from fusegen.program.rebuild import rebuilt


def leave_out_centred(part: Part) -> Parts:
    """Drop the terms that cancel exactly from a derivative's sums."""
    program, given = part.program, part.given
    # In the forward pass, a mean must have the same rounding as the values it is subtracted from.
    if not given:
        return (part,)
    waits = depths(program, given, lambda v: isinstance(v, Reduce))
    builder = Builder()
    builder.adopt(program.nodes())
    replaced: dict[Value, Value] = {}
    for value in waits:
        if not isinstance(value, Reduce) or value.op != "sum" or value.sample or value in given:
            continue
        terms = _Terms(value, builder, waits)
        rest = terms.rest(value.arg.symbol)
        if rest not in (value.arg.symbol, 0) and terms.sooner(rest):
            note = "without x - mean(x), which adds up to nothing"
            term = builder.map(f"{value.name}_term", rest, note)
            # If the rest does not vary along the row, it counts once per element.
            left = builder.sum_to(value.name, term, value.kind, value.arg.kind)
            # A single number for all rows would be saved in another shape.
            if left.kind == value.kind:
                replaced[value] = left
    return part.having(rebuilt(program, replaced, given) if replaced else program)


class _Terms:
    """The terms of one sum."""

    def __init__(self, total: Reduce, builder: Builder, waits: Mapping[Value, int]) -> None:
        self.total, self.builder, self.waits = total, builder, waits
        self.depth = self._depth(total.arg.symbol)

    def _depth(self, expr: sp.Expr) -> int:
        """Return how many sums an expression waits for, one after another."""
        return max((self.waits[self.builder.value(s)] for s in expr.free_symbols), default=0)

    def sooner(self, expr: sp.Expr) -> bool:
        """Whether an expression waits for fewer sums than the terms of this sum do."""
        return self._depth(expr) < self.depth

    def rest(self, expr: sp.Expr) -> sp.Expr:
        """Return an expression without the terms that cancel, or the expression itself if there are none."""
        if expr.is_Symbol:
            inner = self._inner(expr)
            rest = inner if inner is None else self.rest(inner)
            return expr if rest == inner else rest
        if expr.is_Add:
            return sp.Add(*(self.rest(part) for part in expr.args))
        outside, varying = self._factors(expr)
        if len(varying) != 1 or not outside:
            return expr
        depth = max((self._depth(f) for f in outside), default=0)
        if depth and depth == self.depth and self._centred(varying[0]):
            return sp.Integer(0)
        return sp.Mul(*outside, self.rest(varying[0]))

    def _factors(self, expr: sp.Expr) -> tuple[list[sp.Expr], list[sp.Expr]]:
        """Return the factors that do not vary along the sum, and those that do."""
        factors = sp.Mul.make_args(expr)
        outside = [f for f in factors if not self._varies(f)]
        return outside, [f for f in factors if self._varies(f)]

    def _centred(self, expr: sp.Expr) -> bool:
        """Whether an expression is x - mean(x), times factors that do not vary along the sum."""
        if expr.is_Symbol:
            inner = self._inner(expr)
            return inner is not None and self._centred(inner)
        if not expr.is_Add:
            _, varying = self._factors(expr)
            return len(varying) == 1 and varying[0] != expr and self._centred(varying[0])
        constant, varying_part = expr.as_independent(*self._varying_symbols(expr), as_Add=True)
        if not varying_part.is_Symbol:
            return False
        value = self.builder.value(varying_part)
        return any(
            self._known(constant) == -sum_.symbol / self._count(value)
            for sum_ in self.waits
            if isinstance(sum_, Reduce)
            and (sum_.op, sum_.arg, sum_.kind) == ("sum", value, self.total.kind)
            and not sum_.sample
        )

    def _varying_symbols(self, expr: sp.Expr) -> list[sp.Symbol]:
        return [s for s in expr.free_symbols if self._varies(s)]

    def _known(self, expr: sp.Expr) -> sp.Expr:
        """Write an expression that does not vary along the sum in terms of sums and inputs."""
        while inner := {s: i for s in expr.free_symbols if (i := self._inner(s)) is not None}:
            expr = expr.xreplace(inner)
        return expr

    def _count(self, value: Value) -> sp.Expr:
        """Return how many elements each of the sum's results adds up."""
        extents = self.builder.extents(value.kind & ~self.total.kind)
        return sp.Mul(*(e.symbol for e in extents))

    def _varies(self, part: sp.Expr) -> bool:
        """Whether an expression varies along the axes that the sum reduces."""
        return bool(self.builder.kind(part) & ~self.total.kind)

    def _inner(self, symbol: sp.Symbol) -> sp.Expr | None:
        """Return the expression of the node that a symbol stands for, if it is a map."""
        value = self.builder.value(symbol)
        return value.expr if isinstance(value, Map) else None
