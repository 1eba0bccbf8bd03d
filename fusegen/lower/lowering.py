"""Turns a program into a kernel: schedule, hoist invariants, share common subexpressions, print."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import sympy as sp

from fusegen.lower import passes
from fusegen.lower.arithmetic import arranged
from fusegen.lower.hoist import hoist, kind_of
from fusegen.lower.inputs_of_part import inputs_of
from fusegen.lower.kernel.code import Line, Variable
from fusegen.lower.kernel.fitted_function import FittedFunction
from fusegen.lower.kernel.join_maximum import join_shifts
from fusegen.lower.kernel.join_moments import join_moments
from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.kernel.kernel_of_columns import columns_apart
from fusegen.lower.kernel.results import Results
from fusegen.lower.kernel.stage import RowReduction, Stage
from fusegen.lower.part import Part
from fusegen.lower.polynomials.of_formulas import Fitted, fit_formulas
from fusegen.lower.print_cpp import Printer, fitted_function
from fusegen.lower.results_of_part import results_of
from fusegen.lower.schedule import LoweringError, schedule
from fusegen.lower.share_parts import Named, share
from fusegen.lower.take_from_given import take_from_given
from fusegen.program import Input, Kind, Map, Program, Value, describe

__all__ = ["LoweringError", "lower"]


def lower(
    program: Program,
    given: Collection[Value] = (),
    *,
    apart: bool = False,
    grouped: bool = False,
    reordered: bool = False,
) -> Kernel:
    """Return the kernel that computes a program.

    Args:
        program: what to compute.
        given: values that the forward pass saved; they are loaded.
        apart: whether the columns of a row may be non-adjacent in memory, so that outer reductions are
            needed.
        grouped: whether a row is a group of channels.
        reordered: whether rows are counted in another order than they have in memory.

    Raises:
        LoweringError: the program has a form that no kernel template supports.
    """
    kernels: list[Kernel] = []
    for part in passes.run(Part(program, tuple(given))):
        lowered = _Lowering(take_from_given(part), reordered=reordered).kernel()
        handed = {r.name for k in kernels for r in k.results}
        operands = tuple(
            replace(f, handed=f.saved and f.name in handed) for f in lowered.inputs.operands
        )
        inputs = replace(lowered.inputs, operands=operands)
        lowered = replace(
            lowered, inputs=inputs, apart=apart, grouped=grouped, sampled=part.sampled
        )
        kernels += columns_apart(lowered, kernels)
    *before, last = kernels
    return replace(last, before=tuple(before))


class _Lowering:
    """The state of lowering one part: names, kinds, and the places of hoisted parts."""

    def __init__(self, part: Part, *, reordered: bool) -> None:
        self.reordered = reordered
        program, plan = part.program, schedule(part.program, part.given)
        self.program, self.plan, self.fixed = program, plan, part.fixed
        self.needed = {value.name: value for value in plan.needed}
        self.kinds: dict[sp.Symbol, Kind] = {}
        self.variables: dict[sp.Symbol, Variable] = {}
        self.depths: dict[sp.Symbol, int] = {}
        self.hoisted: dict[sp.Expr, sp.Symbol] = {}
        self.hoisted_parts: dict[sp.Symbol, sp.Expr] = {}
        self.taken = {value.name for value in plan.needed} | set(program.outputs)
        self.placed: dict[tuple[Kind, int], list[tuple[str, sp.Expr, str]]] = {}
        self.fitted = fit_formulas(program)
        self.print = Printer(
            self.variables,
            self._weight,
            [formula.name for formula in self.fitted.values()],
            self._text,
        )
        for value in plan.needed:
            self.kinds[value.symbol] = value.kind
            self.depths[value.symbol] = plan.depth[value]
            self.variables[value.symbol] = self._variable(value, plan.depth[value])

    def kernel(self) -> Kernel:
        """Lower every stage, then assemble the kernel."""
        plan = self.plan
        inputs = inputs_of(self.program, plan)
        for stage in range(plan.stages):
            for kind in (Kind.SCALAR, Kind.COL, Kind.ROW):
                for node in plan.at(stage, kind):
                    self._put(kind, stage, node.name, self._expression(node), node.note)
        bodies = [self._body(stage) for stage in range(plan.stages)]
        results = results_of(self.program, plan, self._variable, reordered=self.reordered)
        stages = tuple(self._stage(index, lines, results) for index, lines in enumerate(bodies))
        return Kernel(
            name=self.program.name,
            inputs=inputs,
            col_lines=self._lines(Kind.COL, 0),
            scalar_lines=self._lines(Kind.SCALAR, 0),
            stages=join_moments(join_shifts(stages, plan), plan),
            total_lines=tuple(
                Line(Variable(v.name, "total"), self.print(v.expr), v.note) for v in plan.final
            ),
            results=results,
            fitted=self._fitted_functions(),
            comment=(
                *(
                    describe(v)
                    for v in plan.needed
                    if not isinstance(v, Input) and v not in plan.given
                ),
                *(f"({note})" for note in self.program.notes),
            ),
            signature=", ".join(f"{i.name}: {i.access.kind.label}" for i in self.program.inputs),
            returns=", ".join(f"{r.name}: {r.kind.label}" for r in results),
        )

    def _stage(self, index: int, lines: tuple[Line, ...], results: Results) -> Stage:
        """Return a stage of the kernel, given its element lines."""
        plan = self.plan
        return Stage(
            index=index,
            row_lines=self._lines(Kind.ROW, index),
            lines=lines,
            live=tuple(v.name for v in plan.live(index)),
            reads=tuple(v.name for v in plan.reads(index)),
            reductions=tuple(
                RowReduction(r.name, r.op, self._variable(r.arg, index))
                for r in plan.row_reductions(index)
            ),
            results=Results(r for r in results if r.stage == index and not r.per_row),
        )

    def _variable(self, value: Value, stage: int) -> Variable:
        """Return the variable from which a stage reads a value.

        Full values of earlier stages are in `live`.
        """
        if value in self.plan.final or value in self.plan.totals:
            return Variable(value.name, "total")
        if isinstance(value, Input) or value.kind != Kind.FULL:
            return Variable(value.name, value.kind.label)
        here = self.plan.depth[value] >= stage or value in self.plan.recomputed
        return Variable(value.name, "" if here else "live")

    def _body(self, stage: int) -> tuple[Line, ...]:
        """Return the lines that a stage runs for each element."""
        exprs = [
            Named(n.name, self._expression(n), n.note, n.symbol)
            for n in self.plan.at(stage, Kind.FULL)
        ]
        for value in self.plan.needed:
            self.variables[value.symbol] = self._variable(value, stage)
        lines = []
        for named in share(exprs):
            self.kinds[named.symbol] = Kind.FULL
            self.variables[named.symbol] = Variable(named.name)
            code = self.print(named.expr, named.symbol)
            lines.append(Line(Variable(named.name), code, named.note))
        return tuple(lines)

    def _weight(self, expr: sp.Expr) -> int:
        """Return how many axes an expression varies along."""
        return len(list(kind_of(expr, self.kinds)))

    def _text(self, expr: sp.Expr) -> str:
        """Return an expression as text, with hoisted parts expanded: their names differ between operators."""
        while named := {s: p for s in expr.free_symbols if (p := self.hoisted_parts.get(s))}:
            expr = expr.xreplace(named)
        return str(expr)

    def _arranged(self, expr: sp.Expr) -> sp.Expr:
        return arranged(expr, self._weight, self._text)

    def _expression(self, node: Map) -> sp.Expr:
        """Return a node's expression, hoisted; or a call, if a formula was fitted for it.

        If the node must have the same bits in every operator, its arithmetic is arranged here, before `share`
        sees it.
        """
        if node in self.fitted:
            number = list(self.fitted).index(node)
            return Fitted(sp.Integer(number), self.fitted[node].symbol)
        row = self.needed.get(node.whole.name) if node.whole else None
        if isinstance(row, Map) and row.name in self.fixed:
            return self._element(row, node)
        expr = hoist(node.expr, self.kinds, node.name, self._place)
        return self._arranged(expr) if node.name in self.fixed else expr

    def _element(self, row: Map, node: Map) -> sp.Expr:
        """Return one element of a row, computed with the row's own arithmetic."""
        assert node.whole is not None
        expr = self._expression(row)
        while columns := [s for s in expr.free_symbols if self._of_columns(s)]:
            parts = {s: self._arranged(self.hoisted_parts[s]) for s in columns}
            expr = expr.xreplace(parts)
        return expr.xreplace(dict(node.whole.elements))

    def _of_columns(self, symbol: sp.Symbol) -> bool:
        """Whether a symbol is a hoisted part with one value per column."""
        return symbol in self.hoisted_parts and self.kinds[symbol] == Kind.COL

    def _fitted_functions(self) -> tuple[FittedFunction, ...]:
        needed = (v for v in self.fitted if v in self.plan.needed)
        return tuple(fitted_function(self.fitted[v]) for v in needed)

    def _place(self, part: sp.Expr, kind: Kind, name: str) -> sp.Symbol:
        """Give a hoisted part its own field in `Col`, `Row` or `Scalar`."""
        if part not in self.hoisted:
            head = type(part).__name__.lower() if part.is_Function else "factor"
            if part.is_Pow and part.exp == -1 and part.base.is_Symbol:
                name, head = str(part.base), "inverse"
            field, count = f"{name}_{head}", 1
            while field in self.taken:
                count += 1
                field = f"{name}_{head}{count}"
            self.taken.add(field)
            symbol = sp.Symbol(field, real=True)
            depth = max((self.depths[s] for s in part.free_symbols), default=0)
            self.kinds[symbol], self.depths[symbol] = kind, depth
            self.variables[symbol] = Variable(field, kind.label)
            self.hoisted[part] = symbol
            inner = hoist(part, self.kinds, name, self._place)
            self.hoisted_parts[symbol] = inner
            self._put(kind, depth, field, inner, "")
        return self.hoisted[part]

    def _put(self, kind: Kind, stage: int, name: str, expr: sp.Expr, note: str) -> None:
        """Record an expression that is computed once per row, per column or per call."""
        self.placed.setdefault((kind, stage), []).append((name, expr, note))

    def _lines(self, kind: Kind, stage: int) -> tuple[Line, ...]:
        """Return the recorded expressions of a kind and stage as lines of code."""
        found = self.placed.get((kind, stage), [])
        return tuple(Line(Variable(n, kind.label), self.print(e), note) for n, e, note in found)
