"""Program -> Kernel: schedule it, hoist what is invariant, share common subexpressions, print."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Literal

import sympy as sp

from fusegen.lower import passes
from fusegen.lower.arithmetic import arranged
from fusegen.lower.hoist import hoist, kind_of
from fusegen.lower.kernel.join_maximum import join_shifts
from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.kernel.kernel_of_columns import columns_apart
from fusegen.lower.kernel.stage import (
    Element,
    Field,
    FittedFunction,
    Line,
    Result,
    RowReduction,
    Stage,
)
from fusegen.lower.part import Part
from fusegen.lower.polynomials.of_formulas import Fitted, fit_formulas
from fusegen.lower.print_cpp import Printer, fitted_function
from fusegen.lower.schedule import LoweringError, schedule
from fusegen.lower.share_parts import Named, share
from fusegen.program import Input, Kind, Map, Program, Reduce, Take, Value, arguments, describe

__all__ = ["LoweringError", "lower"]


def lower(program: Program, given: Collection[Value] = (), *, strided: bool = False) -> Kernel:
    """Return the kernel that computes a program.

    Args:
        program: what to compute.
        given: values of the program that the forward pass saved, so that they are loaded.
        strided: whether the columns of a row may lie apart in memory.

    Raises:
        LoweringError: where the program has a form that no kernel template covers.
    """
    kernels: list[Kernel] = []
    for part in passes.run(Part(program, tuple(given))):
        lowered = _Lowering(part).kernel()
        handed = {r.name for k in kernels for r in k.results}
        saved = tuple(replace(f, handed=f.name in handed) for f in lowered.saved)
        lowered = replace(lowered, strided=strided, saved=saved, sampled=part.sampled)
        kernels += columns_apart(lowered, kernels)
    *before, last = kernels
    return replace(last, before=tuple(before))


class _Lowering:
    """The state of lowering one part: names, kinds and what was hoisted where."""

    def __init__(self, part: Part) -> None:
        program, plan = part.program, schedule(part.program, part.given)
        self.program, self.plan, self.fixed = program, plan, part.fixed
        self.needed = {value.name: value for value in plan.needed}
        self.kinds: dict[sp.Symbol, Kind] = {}
        self.names: dict[sp.Symbol, str] = {}
        self.depths: dict[sp.Symbol, int] = {}
        self.hoisted: dict[sp.Expr, sp.Symbol] = {}
        self.hoisted_parts: dict[sp.Symbol, sp.Expr] = {}
        self.taken = {value.name for value in plan.needed} | set(program.outputs)
        self.placed: dict[tuple[Kind, int], list[tuple[str, sp.Expr, str]]] = {}
        self.fitted = fit_formulas(program)
        self.print = Printer(
            self.names,
            self._weight,
            [formula.name for formula in self.fitted.values()],
            self._text,
        )
        for value in plan.needed:
            self.kinds[value.symbol] = value.kind
            self.depths[value.symbol] = plan.depth[value]
            self.names[value.symbol] = self._spelled(value, plan.depth[value])

    def kernel(self) -> Kernel:
        """Lower every stage, then collect the fields."""
        plan = self.plan
        read, taken = self._read(), self._taken()
        for stage in range(plan.stages):
            for kind in (Kind.SCALAR, Kind.COL, Kind.ROW):
                for node in plan.at(stage, kind):
                    self._put(kind, stage, node.name, self._expression(node), node.note)
        bodies = [self._body(stage) for stage in range(plan.stages)]
        results = self._results()
        stages = tuple(self._stage(index, lines, results) for index, lines in enumerate(bodies))
        return Kernel(
            name=self.program.name,
            full=tuple(f for f in self._fields(Kind.FULL, read) if not f.per_channel),
            spread=tuple(f for f in self._fields(Kind.FULL, read) if f.per_channel),
            col=self._fields(Kind.COL, read),
            row=self._fields(Kind.ROW),
            scalar=self._fields(Kind.SCALAR),
            taken=taken,
            aside=tuple(
                f for f in (*self._fields(Kind.FULL), *self._fields(Kind.COL)) if f.name not in read
            ),
            saved=tuple(Field(v.name, v.kind) for v in plan.given),
            attributes=self._sourced("attribute"),
            random=self._sourced("random"),
            extents=tuple(f.name for f in self._sourced("extent")),
            indices=tuple(f.name for f in self._sourced("index")),
            col_lines=self._lines(Kind.COL, 0),
            scalar_lines=self._lines(Kind.SCALAR, 0),
            stages=join_shifts(stages, plan),
            final_lines=tuple(
                self.print.line(f"total.{v.name}", v.expr, v.note) for v in plan.final
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
            signature=", ".join(f"{i.name}: {i.declared.label}" for i in self.program.inputs),
            returns=", ".join(f"{r.name}: {r.kind.label}" for r in results),
        )

    def _stage(self, index: int, lines: tuple[Line, ...], results: tuple[Result, ...]) -> Stage:
        plan = self.plan
        return Stage(
            index=index,
            row_lines=self._lines(Kind.ROW, index),
            lines=lines,
            kept=tuple(v.name for v in plan.kept(index)),
            reads=tuple(v.name for v in plan.reads(index)),
            reductions=tuple(
                RowReduction(r.name, r.op, self._spelled(r.arg, index))
                for r in plan.row_reductions(index)
            ),
            results=tuple(r for r in results if r.stage == index and not r.per_row),
        )

    def _spelled(self, value: Value, stage: int) -> str:
        """Return how a stage reads a value: earlier stages' full values were kept."""
        if value in self.plan.final or value in self.plan.totals:
            return f"total.{value.name}"
        if isinstance(value, Input) or value.kind != Kind.FULL:
            return f"{value.kind.label}.{value.name}"
        here = self.plan.depth[value] >= stage or value in self.plan.afresh
        return value.name if here else f"kept.{value.name}"

    def _body(self, stage: int) -> tuple[Line, ...]:
        exprs = [
            Named(n.name, self._expression(n), n.note, n.symbol)
            for n in self.plan.at(stage, Kind.FULL)
        ]
        for value in self.plan.needed:
            self.names[value.symbol] = self._spelled(value, stage)
        lines = []
        for named in share(exprs):
            self.kinds[named.symbol] = Kind.FULL
            self.names[named.symbol] = named.name
            lines.append(self.print.line(named.name, named.expr, named.note))
        return tuple(lines)

    def _weight(self, expr: sp.Expr) -> int:
        return len(list(kind_of(expr, self.kinds)))

    def _text(self, expr: sp.Expr) -> str:
        """Return an expression as text, hoisted parts written out: their names differ between operators."""
        while named := {s: p for s in expr.free_symbols if (p := self.hoisted_parts.get(s))}:
            expr = expr.xreplace(named)
        return str(expr)

    def _arranged(self, expr: sp.Expr) -> sp.Expr:
        return arranged(expr, self._weight, self._text)

    def _expression(self, node: Map) -> sp.Expr:
        """Return a node's expression: a call of the formula fitted for it, or its own, hoisted.

        Where it has the same bits in every operator its arithmetic is arranged here, before `share` sees it.
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
        """Return an element of a row by the arithmetic of the row itself."""
        assert node.whole is not None
        expr = self._expression(row)
        while columns := [s for s in expr.free_symbols if self._of_columns(s)]:
            parts = {s: self._arranged(self.hoisted_parts[s]) for s in columns}
            expr = expr.xreplace(parts)
        return expr.xreplace(dict(node.whole.elements))

    def _of_columns(self, symbol: sp.Symbol) -> bool:
        """Whether a symbol is a hoisted part that each column has."""
        return symbol in self.hoisted_parts and self.kinds[symbol] == Kind.COL

    def _fitted_functions(self) -> tuple[FittedFunction, ...]:
        needed = (v for v in self.fitted if v in self.plan.needed)
        return tuple(fitted_function(self.fitted[v]) for v in needed)

    def _place(self, part: sp.Expr, kind: Kind, name: str) -> sp.Symbol:
        """Give a hoisted part a field of its own in `Col`, `Row` or `Scalar`."""
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
            self.names[symbol] = f"{kind.label}.{field}"
            self.hoisted[part] = symbol
            inner = hoist(part, self.kinds, name, self._place)
            self.hoisted_parts[symbol] = inner
            self._put(kind, depth, field, inner, "")
        return self.hoisted[part]

    def _put(self, kind: Kind, stage: int, name: str, expr: sp.Expr, note: str) -> None:
        self.placed.setdefault((kind, stage), []).append((name, expr, note))

    def _lines(self, kind: Kind, stage: int) -> tuple[Line, ...]:
        struct = kind.label
        found = self.placed.get((kind, stage), [])
        return tuple(self.print.line(f"{struct}.{n}", e, note) for n, e, note in found)

    def _read(self) -> set[str]:
        """Return the names of the values that are read as they are, not only taken an element of."""
        users = (
            v for v in self.plan.needed if v not in self.plan.given and not isinstance(v, Take)
        )
        read = {a.name for user in users for a in arguments(user)}
        return read | {o.value.name for o in self.program.outputs.values()}

    def _taken(self) -> tuple[Element, ...]:
        """Return the elements of rows that are loaded by their index.

        Raises:
            LoweringError: where such an element has one number a channel.
        """
        fields = {}
        for kind in (Kind.FULL, Kind.COL):
            fields.update({f.name: f for f in self._fields(kind)})
        fields.update({f.name: f for f in self._sourced("random")})
        found = []
        for value in self.plan.needed:
            if isinstance(value, Take):
                field = fields.get(value.arg.name, Field(value.arg.name, value.arg.kind))
                if field.per_channel:
                    raise LoweringError(
                        f"{self.program.name}: {describe(value)} takes of one number a channel"
                    )
                found.append(Element(value.name, field, value.index.name))
        return tuple(found)

    def _fields(self, kind: Kind, read: Collection[str] | None = None) -> tuple[Field, ...]:
        """Return the tensor inputs of a kind, all or those in `read`, in the program's order."""
        needed = {v.name for v in self.plan.needed} if read is None else read
        inputs = (i for i in self.program.inputs if i.source == "tensor" and i.kind == kind)
        return tuple(
            Field(i.name, kind, integer=i.integer, per_channel=i.per_channel, half=i.half)
            for i in inputs
            if i.name in needed
        )

    def _sourced(self, source: str) -> tuple[Field, ...]:
        found = (v for v in self.plan.needed if isinstance(v, Input) and v.source == source)
        return tuple(Field(v.name, v.kind, v.stream) for v in found)

    def _results(self) -> tuple[Result, ...]:
        results = []
        for name, output in self.program.outputs.items():
            result = self._result(name, output.value, output.declared, output.like)
            results.append(replace(result, outline=output.outline, half=output.half(name)))
        for value in self.program.saved:
            results.append(self._result(value.name, value, value.kind))
        for value in self.plan.totals:
            if value not in self.program.saved:
                result = self._result(value.name, value, value.kind)
                results.append(replace(result, hidden=True))
        return _sharing_sums(results)

    def _result(self, name: str, value: Value, kind: Kind, given: Input | None = None) -> Result:
        like = given.name if given else None
        if kind == Kind.SCALAR and isinstance(value, Map | Input):
            return Result(name, kind, like, "final", self.names[value.symbol], self.plan.stages)
        if kind == Kind.COL and isinstance(value, Map) and value.kind in (Kind.COL, Kind.SCALAR):
            return Result(name, kind, like, "store", self.names[value.symbol], self.plan.stages)
        if kind == Kind.FULL:
            stage = self.plan.depth[value]
            return Result(name, kind, like, "store", self._spelled(value, stage), stage)
        if kind == Kind.CHANNEL and given is not None and given.kind == Kind.FULL:
            stage = self.plan.depth[value]
            return Result(name, kind, like, "sum", self._spelled(value, stage), stage)
        # What holds one number a channel may vary along rows: then it is added up over them.
        along_rows = kind == Kind.ROW or (given is not None and given.kind == Kind.ROW)
        if along_rows and value.kind in (Kind.ROW, Kind.SCALAR):
            how: Literal["store", "sum"] = "store" if kind == Kind.ROW else "sum"
            return Result(name, kind, like, how, self.names[value.symbol], self.plan.stages, True)
        if isinstance(value, Reduce) and value.op == "sum" and value.kind == kind:
            per_row = value.arg.kind == Kind.ROW
            if value.arg.kind in (Kind.FULL, Kind.ROW):
                stage = self.plan.stages if per_row else self.plan.depth[value.arg]
                code = self._spelled(value.arg, stage)
                return Result(name, kind, like, "sum", code, stage, per_row)
        raise LoweringError(
            f"{self.program.name}: {name} ({kind.label}) is not a sum over the activation: {describe(value)}"
        )


def _sharing_sums(results: Iterable[Result]) -> tuple[Result, ...]:
    """Let results that add up the same value share one sum: two biases have the same gradient."""
    first: dict[tuple[Kind, str, int, bool], str] = {}
    shared = []
    for result in results:
        key = (result.kind, result.code, result.stage, result.per_row)
        shared.append(
            replace(result, summed_as=first.setdefault(key, result.name))
            if result.how == "sum"
            else result
        )
    return tuple(shared)
