"""Multiplies early what is known early, so that less is kept from one pass over a row to the next.

The backward of softmax(gelu(x)) is gelu'(x) e (g - d) / s, where d is a sum over the row. Before d is known
a thread would keep gelu'(x) and e; it keeps their product.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import sympy as sp

from fusegen.lower.rebuild import rebuilt
from fusegen.lower.schedule import Schedule, schedule
from fusegen.program import Kind, Map, Program, Value, arguments
from fusegen.program_builder import Builder

#: Bytes that an element of a 16-bit type keeps where a thread can hold 16 of them.
_LIGHT = 8


def regroup(
    program: Program, given: Collection[Value] = (), fixed: Collection[str] = ()
) -> tuple[Program, Schedule]:
    """Return the program with its products grouped so that an element keeps little, and its schedule.

    Products that late values add are made early only where little is kept then: where much is, they live
    beside their factors, and registers spill.

    Args:
        program: the program.
        given: values of it that are loaded, not computed.
        fixed: the names of the values that stay as they are (`reproduced.py`).
    """
    plan = schedule(program, given)
    if plan.stages == 1:
        return program, plan
    programs = [_regrouped(program, plan, fixed, terms=terms) for terms in (False, True)]
    plain, termed = [(found, schedule(found, given)) for found in programs]
    return termed if termed[1].most_held < min(plain[1].most_held, _LIGHT + 1) else plain


def _regrouped(program: Program, plan: Schedule, fixed: Collection[str], *, terms: bool) -> Program:
    """Return the program with what late products multiply of earlier stages in nodes of their own.

    With `terms`, so are the early products that late values add.
    """
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
                and part.name not in fixed
            ):
                found += factors(part)
            else:
                found.append(factor)
        return found

    def product(value: Map) -> sp.Expr:
        """The product with its early factors multiplied in a node of their own."""
        early: list[sp.Expr] = []
        rest: list[sp.Expr] = []
        for factor in factors(value):
            part = builder.value(factor) if factor.is_Symbol else None
            held = isinstance(part, Map) and part.kind == Kind.FULL and levels[part] < levels[value]
            (early if held else rest).append(factor)
        if len(early) < 2:
            return value.expr
        return sp.Mul(named(early), *rest)

    def early_term(part: sp.Expr, level: int) -> sp.Expr:
        """A term, or the node that holds it where it is a product of full values known before."""
        parts = [builder.value(symbol) for symbol in part.free_symbols]
        full = [p for p in parts if p.kind == Kind.FULL]
        known = all(levels[p] < level for p in parts)
        return named(part.args) if part.is_Mul and known and len(full) > 1 else part

    def named(early: Sequence[sp.Expr]) -> sp.Expr:
        """The product of what is known early, as a node."""
        names = dict.fromkeys(str(s) for f in early for s in sorted(f.free_symbols, key=str))
        made = builder.map("_".join(names), sp.Mul(*early), "known before the row's sums are")
        levels[made] = max(levels[a] for a in arguments(made))
        return made.symbol

    for value in nodes:
        if not isinstance(value, Map) or value.kind != Kind.FULL or value in plan.given:
            continue
        if levels[value] == 0 or value.name in fixed:
            continue
        if value.expr.is_Mul:
            grouped = product(value)
        elif value.expr.is_Add and terms:
            grouped = sp.Add(*(early_term(part, levels[value]) for part in value.expr.args))
        else:
            continue
        if grouped != value.expr:
            replaced[value] = builder.map(f"{value.name}_grouped", grouped, value.note)
    return rebuilt(program, replaced, plan.given) if replaced else program
