"""Builds programs: gives unique names, shares equal values, and folds expressions as they arrive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

import sympy as sp

from fusegen.atoms.absolute_value import absolute
from fusegen.atoms.complements import complemented
from fusegen.atoms.halves import Partition
from fusegen.atoms.values import folded
from fusegen.program.access import Access
from fusegen.program.ir import (
    Input,
    Map,
    Reduce,
    Source,
    Take,
    Value,
    Whole,
)
from fusegen.program.kind import Kind, joined

__all__ = ["Builder"]

AnyValue = TypeVar("AnyValue", bound=Value)


class Builder:
    """Makes the values of one program: unique names, and the same node for the same expression.

    Args:
        streams: the chain's rng stream of its first random input.
    """

    def __init__(self, streams: int = 0) -> None:
        self.streams = streams
        #: The value returned for each requested name. If the value was known already, its own name differs.
        self.called: dict[str, Value] = {}
        self._by_symbol: dict[sp.Symbol, Value] = {}
        self._maps: dict[sp.Expr, Value] = {}
        self._reductions: dict[tuple[str, Value, Kind, bool], Value] = {}
        self._taken: dict[tuple[Value, Input], Value] = {}
        self.inputs: list[Input] = []

    def value(self, symbol: sp.Symbol) -> Value:
        """Return the value that a symbol stands for."""
        return self._by_symbol[symbol]

    def knows(self, symbol: sp.Symbol) -> bool:
        """Return whether a symbol stands for a value."""
        return symbol in self._by_symbol

    def adopt(self, values: Iterable[Value]) -> None:
        """Take over the values of another program, so that this one can build on them."""
        for value in values:
            self._by_symbol[value.symbol] = value
            if isinstance(value, Map):
                self._maps[value.expr] = value
            elif isinstance(value, Reduce):
                self._reductions[value.op, value.arg, value.kind, value.shift_invariant] = value
            elif isinstance(value, Take):
                self._taken[value.arg, value.index] = value

    def _unique(self, name: str) -> str:
        """Return a name that no value has yet."""
        candidate, count = name, 1
        while sp.Symbol(candidate, real=True) in self._by_symbol:
            count += 1
            candidate = f"{name}_{count}"
        return candidate

    def _keep(self, value: AnyValue) -> AnyValue:
        """Register a value by its symbol."""
        self._by_symbol[value.symbol] = value
        return value

    def input(self, name: str, kind: Kind, source: Source = "tensor", *, stream: int = 0) -> Input:
        """Add an input: a tensor of its kind, or what comes from elsewhere."""
        if source == "tensor":
            return self.read(name, kind, Access(name, kind))[0]
        made = self._made(self._unique(name), kind, source, stream)
        self.inputs.append(made)
        return made

    def read(
        self, name: str, kind: Kind, access: Access, *, differentiable: bool = True
    ) -> tuple[Input, ...]:
        """Add the parts of a tensor as inputs; most have one.

        Args:
            name: the tensor's name.
            kind: the kind of the inputs.
            access: how they lie in the tensor; its own tensor and its place do not matter.
            differentiable: whether they have gradients; numbers that are int64 have none.
        """
        moves = differentiable and access.stored != "int64"
        found = tuple(
            self._keep(Input(own.name, kind, own, differentiable=moves))
            for own in access.parts(self._unique(name))
        )
        self.inputs += found
        return found

    def parts(self, name: str, kind: Kind, partition: Partition) -> tuple[Input, ...]:
        """Add the parts of a tensor of a kind as inputs."""
        return self.read(name, kind, Access(name, kind, partition))

    def extent(self, axis: str) -> Input:
        """Return the input that holds the number of "rows", "cols", or the rows of a "sample"."""
        return self._known(axis, Kind.SCALAR, "extent")

    def index(self) -> Input:
        """Return the input that holds the number of the column, from 0."""
        return self._known("column", Kind.COL, "index")

    def presence(self, cotangent: str) -> Input:
        """Return the input that says whether a cotangent is present: 1, or else 0."""
        for made in self.inputs:
            if made.source == "presence" and made.tensor == cotangent:
                return made
        name, access = self._unique(f"has_{cotangent}"), Access(cotangent, Kind.SCALAR)
        flag = Input(name, Kind.SCALAR, access, "presence", differentiable=False)
        self.inputs.append(self._keep(flag))
        return flag

    def _known(self, name: str, kind: Kind, source: Source) -> Input:
        """Return an input that every kernel has, made at its first use."""
        existing = self._by_symbol.get(sp.Symbol(name, real=True))
        if isinstance(existing, Input) and existing.source == source:
            return existing
        return self._made(name, kind, source)

    def _made(self, name: str, kind: Kind, source: Source, stream: int = 0) -> Input:
        """Register an input that is of no tensor."""
        access = Access(name, kind, stored="computed")
        return self._keep(Input(name, kind, access, source, differentiable=False, stream=stream))

    def map(self, name: str, expr: sp.Expr, note: str = "", whole: Whole | None = None) -> Value:
        """Return the value of a pointwise expression over the symbols of known values."""
        expr = complemented(folded(sp.sympify(expr)))
        if expr.has(sp.Abs):  # sympy makes it of sqrt(x * a), where a is the same value as x
            expr = expr.replace(sp.Abs, absolute)
        known = self._by_symbol.get(expr) or self._maps.get(expr)
        self.called[name] = known or self._new_map(name, expr, note, whole)
        return self.called[name]

    def _new_map(self, name: str, expr: sp.Expr, note: str, whole: Whole | None) -> Value:
        """Make a node for an expression that no node has yet."""
        args = sorted((self._by_symbol[s] for s in expr.free_symbols), key=lambda value: value.name)
        made = self._keep(Map(self._unique(name), self.kind(expr), expr, tuple(args), note, whole))
        self._maps[expr] = made
        return made

    def broadcast(self, name: str, value: Value) -> Value:
        """Return a value broadcast to every element."""
        made = Map(self._unique(name), Kind.FULL, value.symbol, (value,), "for each element")
        return self._keep(made)

    def reduce(
        self,
        name: str,
        op: Literal["sum", "max"],
        arg: Value,
        kind: Kind,
        *,
        shift_invariant: bool = False,
    ) -> Value:
        """Return the sum or maximum of `arg` down to `kind`."""
        key = (op, arg, kind, shift_invariant)
        if key not in self._reductions:
            made = Reduce(self._unique(name), kind, op, arg, shift_invariant)
            self._reductions[key] = self._keep(made)
        return self._reductions[key]

    def take(self, value: Value, index: Input) -> Value:
        """Return a row's element of `value`, in the column that the row's `index` names.

        take(f(a, b), i) = f(take(a, i), take(b, i)), down to the values that are loaded.
        """
        if Kind.COL not in value.kind:
            return value
        if (value, index) not in self._taken:
            name = f"{value.name}_at_{index.name}"
            if isinstance(value, Map):
                inner = {a.symbol: self.take(a, index).symbol for a in value.args}
                whole = Whole(value.name, index, tuple(inner.items()))
                taken = self.map(name, value.expr.xreplace(inner), value.note, whole)
            elif isinstance(value, Input) and value.source == "index":
                taken = index
            else:
                kind = (value.kind | index.kind) & ~Kind.COL
                taken = self._keep(Take(self._unique(name), kind, value, index))
            self._taken[value, index] = taken
        return self._taken[value, index]

    def kind(self, expr: sp.Basic) -> Kind:
        """Return the axes that an expression over known values varies along."""
        return joined(self._by_symbol[symbol].kind for symbol in expr.free_symbols)

    def extents(self, axes: Kind) -> list[Input]:
        """Return the extents of some axes: the number of rows for ROW, of columns for COL."""
        return [self.extent(extent) for extent in axes.extents]

    def sum_to(self, name: str, value: Value, kind: Kind, over: Kind = Kind.FULL) -> Value:
        """Return the sum of `value`, broadcast to the axes `over`, down to `kind`.

        An axis that `value` does not vary along contributes its extent as a factor.
        """
        counts = self.extents(over & ~kind & ~value.kind)
        value = self.map(name, sp.Mul(value.symbol, *(c.symbol for c in counts)))
        return self.reduce_to(name, "sum", value, kind)

    def reduce_to(
        self,
        name: str,
        op: Literal["sum", "max"],
        value: Value,
        kind: Kind,
        *,
        shift_invariant: bool = False,
    ) -> Value:
        """Return the sum or maximum of `value` over the axes that `kind` lacks; it may vary along none."""
        if value.kind == Kind.COL and kind == Kind.ROW:  # each row has the same columns
            value = self.broadcast(f"{name}_part", value)
        kept = value.kind & kind
        if kept == value.kind:
            return value
        return self.reduce(name, op, value, kept, shift_invariant=shift_invariant)
