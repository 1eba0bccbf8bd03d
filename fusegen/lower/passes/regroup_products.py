"""Multiplies early factors early, so that fewer values are kept from one stage to the next.

The backward pass of softmax(gelu(x)) is gelu'(x) e (g - d) / s, where d is a sum over the row. Before d is
known, a thread would have to keep both gelu'(x) and e. Instead it keeps their product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import sympy as sp

from fusegen.lower.part import Part, Parts
from fusegen.lower.schedule import Schedule, schedule
from fusegen.program import Kind, Map, Program, Value, arguments
from fusegen.program.builder import Builder
from fusegen.program.rebuild import rebuilt

#: Bytes that an element of a 16-bit type may keep, if a thread can hold 16 such elements.
_LIGHT = 8


def regroup_products(part: Part) -> Parts:
    """Group products so that an element keeps few values.

    Early products that late values add are computed early only if an element then keeps little. Otherwise
    they would be live beside their factors, and registers would spill.
    """
    plan = schedule(part.program, part.given)
    if plan.stages == 1:
        return (part,)
    plain, termed = (
        _regrouped(part.program, plan, part.fixed, terms=terms) for terms in (False, True)
    )
    live, live_of_termed = (schedule(p, part.given).most_live for p in (plain, termed))
    return part.having(termed if live_of_termed < min(live, _LIGHT + 1) else plain)


def _regrouped(program: Program, plan: Schedule, fixed: Collection[str], *, terms: bool) -> Program:
    """Return the program in which the early factors of late products are nodes of their own.

    With `terms`, early products that late values add become nodes too.
    """
    grouping = _Grouping(program, plan, fixed)
    replaced: dict[Value, Value] = {}
    for value in plan.needed:
        if not isinstance(value, Map) or value.kind != Kind.FULL or value in plan.given:
            continue
        depth = plan.depth[value]
        if depth == 0 or value.name in fixed:
            continue
        if value.expr.is_Mul:
            grouped = grouping.product(value.expr, depth)
        elif isinstance(value.expr, sp.Piecewise):
            grouped = grouping.masked(value.expr, depth)
        elif value.expr.is_Add and terms:
            grouped = sp.Add(*(grouping.term(part, depth) for part in value.expr.args))
        else:
            continue
        if grouped != value.expr:
            replaced[value] = grouping.builder.map(f"{value.name}_grouped", grouped, value.note)
    return rebuilt(program, replaced, plan.given) if replaced else program


class _Grouping:
    """Groups the products of one program and turns their early factors into nodes."""

    def __init__(self, program: Program, plan: Schedule, fixed: Collection[str]) -> None:
        nodes = list(plan.needed)
        self.plan, self.fixed, self.depths = plan, fixed, dict(plan.depth)
        self.uses = Counter(a for v in nodes for a in arguments(v))
        self.uses.update(o.value for o in program.outputs.values())
        self.uses.update(program.saved)
        self.builder = Builder()
        self.builder.adopt(nodes)

    def product(self, expr: sp.Expr, depth: int) -> sp.Expr:
        """The product with its early factors multiplied in a node of their own."""
        early, rest = self._split(expr, depth)
        return expr if len(early) < 2 else sp.Mul(self._named(sp.Mul(*early)), *rest)

    def masked(self, expr: sp.Piecewise, depth: int) -> sp.Expr:
        """A masked product, with the mask moved into its early factors: they are 0 where the mask is.

        An element then keeps a single number, and not the mask's inputs too. Late factors may be infinite
        where the mask hides them, so the early factor decides.
        """
        found = _chosen(expr)
        if found is None or self._depth(found[1]) >= depth:
            return expr
        early, rest = self._split(found[0], depth)
        if not early or not rest:
            return expr
        hidden = expr.xreplace({found[0]: sp.Mul(*early)})
        factor = self._named(hidden, [*map(str, early), "masked"])
        return sp.Piecewise((0, sp.Eq(factor, 0)), (sp.Mul(factor, *rest), True))

    def term(self, part: sp.Expr, depth: int) -> sp.Expr:
        """A term, or a node for it if it is a product of full values that are known earlier."""
        parts = [self.builder.value(symbol) for symbol in part.free_symbols]
        full = [p for p in parts if p.kind == Kind.FULL]
        known = all(self.depths[p] < depth for p in parts)
        return self._named(part) if part.is_Mul and known and len(full) > 1 else part

    def _factors(self, expr: sp.Expr, depth: int) -> list[sp.Expr]:
        """The factors of a product, including those of late products that are used only here."""
        found: list[sp.Expr] = []
        for factor in sp.Mul.make_args(expr):
            part = self.builder.value(factor) if factor.is_Symbol else None
            if (
                isinstance(part, Map)
                and part.expr.is_Mul
                and self.uses[part] == 1
                and self.depths[part] == depth
                and part.kind == Kind.FULL
                and part not in self.plan.given
                and part.name not in self.fixed
            ):
                found += self._factors(part.expr, depth)
            else:
                found.append(factor)
        return found

    def _split(self, expr: sp.Expr, depth: int) -> tuple[list[sp.Expr], list[sp.Expr]]:
        """The factors of a product that an element already keeps, and the others."""
        early: list[sp.Expr] = []
        rest: list[sp.Expr] = []
        for factor in self._factors(expr, depth):
            part = self.builder.value(factor) if factor.is_Symbol else None
            live = isinstance(part, Map) and part.kind == Kind.FULL and self.depths[part] < depth
            (early if live else rest).append(factor)
        return early, rest

    def _named(self, product: sp.Expr, words: Sequence[str] = ()) -> sp.Expr:
        """A node for an early product, named after its factors."""
        if not words:
            parts = (s for f in product.args for s in sorted(f.free_symbols, key=str))
            words = [*dict.fromkeys(map(str, parts))]
        made = self.builder.map("_".join(words), product, "known before the row's sums are")
        self.depths[made] = max(self.depths[a] for a in arguments(made))
        return made.symbol

    def _depth(self, expr: sp.Basic) -> int:
        """Return the depth at which an expression is known."""
        return max((self.depths[self.builder.value(s)] for s in expr.free_symbols), default=0)


def _chosen(expr: sp.Piecewise) -> tuple[sp.Expr, sp.Basic] | None:
    """Return the nonzero case of an expression and its condition, or None if it has other cases."""
    if len(expr.args) != 2:
        return None
    (first, condition), (last, _) = expr.args
    if first == 0:
        return last, condition
    return (first, condition) if last == 0 else None
