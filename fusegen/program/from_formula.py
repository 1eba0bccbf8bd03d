"""Turns a formula into nodes: its row functions, random numbers and named parts become values."""

from __future__ import annotations

import sympy as sp

from fusegen import atoms
from fusegen.program.builder import Builder
from fusegen.program.ir import Input, Value
from fusegen.program.kind import Kind, kept


def formula_value(
    builder: Builder, label: str, expr: sp.Expr, note: str = "", *, gone: Kind = Kind.SCALAR
) -> Value:
    """Return the value of a formula over the symbols of `builder`'s values.

    Each reduction's argument becomes a node of its own, which the rest of the formula shares.

    Args:
        builder: where the nodes are made.
        label: the name of the formula's value; the names of its parts begin with it.
        expr: the formula.
        note: the comment of its node.
        gone: the axes that an earlier step reduced: without columns, a row is one element; without rows,
            there is one row.
    """
    return _FormulaNodes(builder, label, note, gone).value(sp.sympify(expr))


#: The symbols of extents, which bear their names.
_EXTENTS = (atoms.COLS, atoms.ROWS, atoms.SAMPLE)


def _of_single_elements(expr: sp.Expr) -> sp.Expr:
    """Return a formula for rows of one element: reducing or taking then returns the argument itself."""
    expr = expr.xreplace({atoms.COLS: sp.Integer(1), atoms.COLUMN: sp.Integer(0)})
    return expr.replace(lambda e: isinstance(e, atoms.ROW_FUNCTIONS), lambda e: e.args[0])


def _using(expr: sp.Expr, term: sp.Expr, symbol: sp.Symbol) -> sp.Expr:
    """Return an expression with a reduced term replaced by its symbol.

    This also replaces a sum inside a longer one: in x + 4 - max(x + 4), the maximum is subtracted from the
    very value whose maximum it is. A number stays what it is: the formula may hold the same one elsewhere.
    """
    if not term.free_symbols:
        return expr
    expr = expr.xreplace({term: symbol})
    if not term.is_Add:
        return expr
    added = set(term.args)
    return expr.replace(
        lambda part: part.is_Add and added < set(part.args),
        lambda part: sp.Add(symbol, *(arg for arg in part.args if arg not in added)),
    )


class _FormulaNodes:
    """Turns the row functions, random numbers and named parts of one formula into nodes of their own."""

    def __init__(self, builder: Builder, label: str, note: str, gone: Kind) -> None:
        self.builder, self.label, self.note, self.gone = builder, label, note, gone

    def value(self, expr: sp.Expr) -> Value:
        """Return the formula's value as a node named after the op."""
        return self.builder.map(self.label, self._pointwise(expr), self.note)

    def _pointwise(self, expr: sp.Expr) -> sp.Expr:
        """Return an expression with everything that is not pointwise replaced by a symbol."""
        if Kind.COL in self.gone:
            expr = _of_single_elements(expr)
        if Kind.ROW in self.gone:
            expr = expr.xreplace({atoms.ROWS: sp.Integer(1)})
        for symbol in _EXTENTS:
            if expr.has(symbol):
                expr = expr.xreplace({symbol: self.builder.extent(symbol.name).symbol})
        if expr.has(atoms.COLUMN):
            expr = expr.xreplace({atoms.COLUMN: self.builder.index().symbol})
        for draw in sorted(expr.atoms(atoms.Rng), key=str):
            before = sum(1 for i in self.builder.inputs if i.source == "random")
            stream = self.builder.streams + before
            made = self.builder.input(f"{self.label}_u", Kind.FULL, "random", stream=stream)
            expr = expr.xreplace({draw: made.symbol})
        parts = (atoms.Let, atoms.Reduction)
        while found := expr.atoms(*parts):
            innermost = [f for f in found if not any(arg.has(*parts) for arg in f.args)]
            part = min(innermost, key=str)
            if isinstance(part, atoms.Let):
                symbol = self._named(part).symbol
                twice = (
                    symbol in expr.free_symbols
                )  # two names of one value, which sympy would merge
                expr = expr.xreplace({part: atoms.together(symbol) if twice else symbol})
            elif isinstance(part, atoms.RowTake):
                expr = expr.xreplace({part: self._taken(*part.args).symbol})
            else:
                reduced = self._reduced(part)
                # A reduced term is a node of its own, which the rest of the formula shares.
                term = self.builder.map(f"{reduced.name}_term", part.args[0])
                expr = _using(expr.xreplace({part: reduced.symbol}), part.args[0], term.symbol)
        return expr

    def _named(self, part: sp.Expr) -> Value:
        """Return the value of a part that the formula names."""
        name, inner = part.args[0], self._pointwise(part.value)
        return self.builder.map(f"{self.label}_{name}", inner, f"{self.label}: {name}")

    def _taken(self, inner: sp.Expr, index: sp.Symbol) -> Value:
        """Return the element of each row that an index names."""
        named = self.builder.value(index)
        if not isinstance(named, Input) or not named.integer:
            raise TypeError(f"{index} is no operand with a column's number for each row")
        value = self.builder.map(f"{self.label}_term", inner, f"{self.label}: what is taken")
        return self.builder.take(value, named)

    def _reduced(self, part: atoms.Reduction) -> Value:
        """Return the value of a sum or a maximum."""
        (inner,) = part.args
        name = f"{self.label}_{part.word}"
        value = self.builder.map(f"{name}_term", inner, f"{self.label}: what is reduced")
        assert part.op != "take"
        if part.op == "sum" and not part.shift_invariant:
            counts = Kind.along(part.counts) & ~self.gone
            return self.builder.sum_to(name, value, kept(part), over=value.kind | counts)
        return self.builder.reduce_to(
            name, part.op, value, kept(part), shift_invariant=part.shift_invariant
        )
