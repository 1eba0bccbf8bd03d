"""Multiplies early what is known early, so that less is kept from one pass over a row to the next.

The backward of softmax(gelu(x)) is gelu'(x) e (g - d) / s, where d is a sum over the row. Before d is known
a thread would keep gelu'(x) and e; it keeps their product.
"""

from __future__ import annotations

from collections import Counter

import sympy as sp

from fusegen.lower.rebuild import rebuilt
from fusegen.lower.schedule import Schedule
from fusegen.program import Kind, Map, Program, Value, arguments
from fusegen.program_builder import Builder


def regroup(program: Program, plan: Schedule) -> Program:
    """Return the program with each product's factors of earlier stages multiplied in a node of their own."""
    if plan.stages == 1:
        return program
    nodes = list(plan.needed)
    uses = Counter(a for v in nodes for a in arguments(v))
    uses.update(o.value for o in program.outputs.values())
    uses.update(program.saved)
    builder = Builder()
    builder.adopt(nodes)
    replaced: dict[Value, Value] = {}
    levels = dict(plan.level)

    def factors(value: Map) -> list[sp.Expr]:
        """The factors of a product, those of its sole uses of other late products included."""
        found: list[sp.Expr] = []
        for factor in sp.Mul.make_args(value.expr):
            part = builder.value(factor) if factor.is_Symbol else None
            if (
                isinstance(part, Map)
                and part.expr.is_Mul
                and uses[part] == 1
                and levels[part] == levels[value]
                and part.kind == Kind.FULL
                and part not in plan.given
            ):
                found += factors(part)
            else:
                found.append(factor)
        return found

    for value in nodes:
        if not isinstance(value, Map) or value.kind != Kind.FULL or value in plan.given:
            continue
        if levels[value] == 0 or not value.expr.is_Mul:
            continue
        early: list[sp.Expr] = []
        rest: list[sp.Expr] = []
        for factor in factors(value):
            part = builder.value(factor) if factor.is_Symbol else None
            held = isinstance(part, Map) and part.kind == Kind.FULL and levels[part] < levels[value]
            (early if held else rest).append(factor)
        if len(early) < 2:
            continue
        names = [str(f) for f in early]
        product = builder.map("_".join(names), sp.Mul(*early), "known before the row's sums are")
        levels[product] = max(levels[builder.value(f)] for f in early)
        replaced[value] = builder.map(
            f"{value.name}_grouped", sp.Mul(product.symbol, *rest), value.note
        )
    return rebuilt(program, replaced, plan.given) if replaced else program
