"""The intermediate representation: a DAG of scalar expressions over values of four kinds.

The activation is viewed as [rows, cols]. A value varies along some of the two axes, and that is
its kind: full [rows, cols], col [cols], row [rows], scalar []. A node is a pointwise sympy
expression over other nodes (`Map`), a reduction to a smaller kind (`Reduce`) or an element of each
row (`Take`). Using a smaller kind in a larger expression broadcasts it.

An operand with one number a channel, such as [C, 1, 1], varies along rows or columns or both,
depending on how the activation's dims become rows and columns (`layout.py`). In a program it has
that kind, as if it had been spread, and is marked `per_channel`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import sympy as sp

from fusegen.formula_text import written


class Kind(enum.Flag):
    """The axes a value varies along. `a | b` is the kind of an expression over both.

    CHANNEL is the kind of operands in specs and ops alone; in a program they have another.
    """

    SCALAR = 0
    ROW = 1
    COL = 2
    FULL = 3
    CHANNEL = 4

    @property
    def label(self) -> str:
        """The kind's name in specs and messages."""
        return (self.name or "scalar").lower()

    @property
    def shape(self) -> str:
        """The kind's shape in terms of the activation's, as users read it."""
        return {0: "[]", 1: "[rows]", 2: "[cols]", 3: "[rows, cols]", 4: "[channels]"}[self.value]


@dataclass(frozen=True, eq=False)
class Value:
    """A value of a program; two values are the same only if they are the same object."""

    name: str
    kind: Kind

    @property
    def symbol(self) -> sp.Symbol:
        """What stands for this value in the expressions of others."""
        return sp.Symbol(self.name, real=True)


#: Where an input comes from: a tensor, a number given at the call, the random generator, the
#: activation's own extent, or the number of the column.
Source = Literal["tensor", "attribute", "random", "extent", "index"]
#: The shape of an output: that of an input, the activation's without its columns (the dim dropped, or
#: kept with size 1), or one number.
Outline = Literal["like", "row", "keepdim", "scalar"]


@dataclass(frozen=True, eq=False)
class Input(Value):
    """A value that comes from outside.

    Args:
        source: where from.
        differentiable: whether `vjp` gives it a cotangent.
        stream: for a random input, which of the chain's draws it is.
        integer: whether the tensor holds int64 numbers.
        per_channel: whether the tensor holds one number a channel, which is spread along `kind`.
            An output like this input is added up over all that its channel was spread to.
    """

    source: Source = "tensor"
    differentiable: bool = True
    stream: int = 0
    integer: bool = False
    per_channel: bool = False

    @property
    def declared(self) -> Kind:
        """The kind of the tensor itself."""
        return Kind.CHANNEL if self.per_channel else self.kind


@dataclass(frozen=True, eq=False)
class Map(Value):
    """A pointwise expression over `args`, which stand in it by their symbols.

    Args:
        note: where the node comes from, for the comment beside its line.
    """

    expr: sp.Expr
    args: tuple[Value, ...]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Reduce(Value):
    """A sum or maximum of `arg` over the axes that its kind has and this value's kind lacks.

    Args:
        shift_invariant: the program's results do not depend on it, so no gradient runs through it.
        sample: whether it is taken over the first sixteenth of the rows alone.
    """

    op: Literal["sum", "max"]
    arg: Value
    shift_invariant: bool = False
    sample: bool = False


@dataclass(frozen=True, eq=False)
class Take(Value):
    """The element of each row that the row's `index` names: one load, known before the row is read.

    Taking is pointwise: what is taken of an expression is the expression of what is taken (`Builder.take`),
    so `arg` is never computed from the row. Where the index is no column the first is taken: whoever
    uses the element must then select another value.

    Args:
        arg: an input, or a sum over rows with a value for each column.
        index: an integer input with a column's number for each row.
    """

    arg: Value
    index: Input


@dataclass(frozen=True)
class Output:
    """What a program returns under one name.

    Args:
        value: what is returned; where its kind is smaller than the output's, it is broadcast.
        like: the input whose kind and shape the output has.
        outline: where it is not "like", the shape it has instead.
    """

    value: Value
    like: Input
    outline: Outline = "like"

    @property
    def kind(self) -> Kind:
        """The kind of what is returned."""
        if self.outline == "like":
            return self.like.kind
        return Kind.SCALAR if self.outline == "scalar" else Kind.ROW

    @property
    def declared(self) -> Kind:
        """The kind of the tensor itself."""
        return self.like.declared if self.outline == "like" else self.kind


@dataclass(frozen=True)
class Program:
    """Inputs, and outputs by name; the nodes between are found from the outputs.

    Args:
        name: what the program computes, such as "forward" or "backward".
        inputs: in the order in which the operator takes them.
        outputs: in the order in which the operator returns them.
        saved: row statistics and totals of the forward pass that are returned beside the outputs, so
            that the backward need not compute them again.
        notes: what was left out because it can act on no value, in words.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: Mapping[str, Output]
    saved: tuple[Value, ...] = ()
    notes: tuple[str, ...] = ()

    def nodes(self) -> list[Value]:
        """Return every value that the outputs need, each after its arguments."""
        return topological((*(out.value for out in self.outputs.values()), *self.saved))

    def __str__(self) -> str:
        head = ", ".join(f"{v.name}: {v.declared.label}" for v in self.inputs)
        lines = [f"{self.name}({head})"]
        lines += [f"  {describe(v)}" for v in self.nodes() if not isinstance(v, Input)]
        lines += [f"  ({note})" for note in self.notes]
        lines += [
            f"  -> {name}: {o.declared.label} = {o.value.name}" for name, o in self.outputs.items()
        ]
        lines += [f"  saved {v.name}: {v.kind.label}" for v in self.saved]
        return "\n".join(lines)


def arguments(value: Value) -> tuple[Value, ...]:
    """Return the values that this one is computed from."""
    if isinstance(value, Map):
        return value.args
    if isinstance(value, Take):
        return (value.arg, value.index)
    return (value.arg,) if isinstance(value, Reduce) else ()


def topological(roots: Iterable[Value]) -> list[Value]:
    """Return the roots and all that they need, arguments first."""
    order: dict[Value, None] = {}
    stack: list[tuple[Value, Iterator[Value]]] = []
    for root in roots:
        stack.append((root, iter(arguments(root))))
        while stack:
            value, rest = stack[-1]
            if value in order:
                stack.pop()
                continue
            following = next((a for a in rest if a not in order), None)
            if following is None:
                order[value] = None
                stack.pop()
            else:
                stack.append((following, iter(arguments(following))))
    return list(order)


def describe(value: Value) -> str:
    """Return one line that says what the value is."""
    if isinstance(value, Map):
        return f"{value.name}: {value.kind.label} = {written(value.expr)}"
    if isinstance(value, Reduce):
        over = {1: "rows", 2: "cols", 3: "rows, cols"}[(value.arg.kind & ~value.kind).value]
        note = ", shift-invariant" if value.shift_invariant else ""
        first = "the first " if value.sample else ""
        reduced = f"{value.op}({value.arg.name} over {first}{over}{note})"
        return f"{value.name}: {value.kind.label} = {reduced}"
    if isinstance(value, Take):
        taken = f"take({value.arg.name}, {value.index.name})"
        return f"{value.name}: {value.kind.label} = {taken}"
    return f"{value.name}: {value.kind.label}"


AnyValue = TypeVar("AnyValue", bound=Value)


class Builder:
    """Makes the values of one program: unique names, and the same node for the same expression."""

    def __init__(self) -> None:
        self._by_symbol: dict[sp.Symbol, Value] = {}
        self._maps: dict[sp.Expr, Value] = {}
        self._reductions: dict[tuple[str, Value, Kind, bool, bool], Value] = {}
        self._taken: dict[tuple[Value, Input], Value] = {}
        self.inputs: list[Input] = []

    def value(self, symbol: sp.Symbol) -> Value:
        """Return the value that a symbol stands for."""
        return self._by_symbol[symbol]

    def adopt(self, values: Iterable[Value]) -> None:
        """Take over the values of another program, so that this one can build on them."""
        for value in values:
            self._by_symbol[value.symbol] = value
            if isinstance(value, Map):
                self._maps[value.expr] = value
            elif isinstance(value, Reduce):
                key = (value.op, value.arg, value.kind, value.shift_invariant, value.sample)
                self._reductions[key] = value
            elif isinstance(value, Take):
                self._taken[value.arg, value.index] = value

    def _unique(self, name: str) -> str:
        candidate, count = name, 1
        while sp.Symbol(candidate, real=True) in self._by_symbol:
            count += 1
            candidate = f"{name}_{count}"
        return candidate

    def _keep(self, value: AnyValue) -> AnyValue:
        self._by_symbol[value.symbol] = value
        return value

    def input(
        self,
        name: str,
        kind: Kind,
        source: Source = "tensor",
        *,
        differentiable: bool = True,
        stream: int = 0,
        integer: bool = False,
        per_channel: bool = False,
    ) -> Input:
        """Add an input."""
        differentiable = differentiable and source == "tensor" and not integer
        made = Input(self._unique(name), kind, source, differentiable, stream, integer, per_channel)
        self.inputs.append(made)
        return self._keep(made)

    def extent(self, axis: Literal["rows", "cols", "sample"]) -> Input:
        """Return the input that holds the number of rows, of columns, or of the rows of a sample."""
        return self._known(axis, Kind.SCALAR, "extent")

    def index(self) -> Input:
        """Return the input that holds the number of the column, from 0."""
        return self._known("column", Kind.COL, "index")

    def _known(self, name: str, kind: Kind, source: Source) -> Input:
        existing = self._by_symbol.get(sp.Symbol(name, real=True))
        if isinstance(existing, Input) and existing.source == source:
            return existing
        return self._keep(Input(name, kind, source, differentiable=False))

    def map(self, name: str, expr: sp.Expr, note: str = "") -> Value:
        """Return the value of a pointwise expression over the symbols of known values."""
        expr = sp.sympify(expr)
        if expr in self._by_symbol:
            return self._by_symbol[expr]
        if expr in self._maps:
            return self._maps[expr]
        args = sorted((self._by_symbol[s] for s in expr.free_symbols), key=lambda value: value.name)
        made = self._keep(Map(self._unique(name), self.kind(expr), expr, tuple(args), note))
        self._maps[expr] = made
        return made

    def broadcast(self, name: str, value: Value) -> Value:
        """Return a value as one of each element."""
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
        sample: bool = False,
    ) -> Value:
        """Return the sum or maximum of `arg` down to `kind`."""
        key = (op, arg, kind, shift_invariant, sample)
        if key not in self._reductions:
            made = Reduce(self._unique(name), kind, op, arg, shift_invariant, sample)
            self._reductions[key] = self._keep(made)
        return self._reductions[key]

    def take(self, value: Value, index: Input) -> Value:
        """Return a row's element of `value` in the column that is the row's `index`.

        take(f(a, b), i) = f(take(a, i), take(b, i)), down to what is loaded.
        """
        if Kind.COL not in value.kind:
            return value
        if (value, index) not in self._taken:
            name = f"{value.name}_at_{index.name}"
            if isinstance(value, Map):
                inner = {a.symbol: self.take(a, index).symbol for a in value.args}
                taken = self.map(name, value.expr.xreplace(inner), value.note)
            elif isinstance(value, Input) and value.source == "index":
                taken = index
            else:
                kind = (value.kind | index.kind) & ~Kind.COL
                taken = self._keep(Take(self._unique(name), kind, value, index))
            self._taken[value, index] = taken
        return self._taken[value, index]

    def kind(self, expr: sp.Basic) -> Kind:
        """Return the axes that an expression over known values varies along."""
        kind = Kind.SCALAR
        for symbol in expr.free_symbols:
            kind |= self._by_symbol[symbol].kind
        return kind

    def extents(self, axes: Kind) -> list[Input]:
        """Return the extents of some axes: the number of rows for ROW, of columns for COL."""
        wanted: list[Input] = []
        if Kind.ROW in axes:
            wanted.append(self.extent("rows"))
        if Kind.COL in axes:
            wanted.append(self.extent("cols"))
        return wanted

    def sum_to(self, name: str, value: Value, kind: Kind, over: Kind = Kind.FULL) -> Value:
        """Return the sum of `value`, broadcast to the axes `over`, down to `kind`.

        An axis that `value` does not vary along contributes its extent as a factor.
        """
        counts = self.extents(over & ~kind & ~value.kind)
        value = self.map(name, sp.Mul(value.symbol, *(c.symbol for c in counts)))
        if value.kind == Kind.COL and kind == Kind.ROW:  # each row adds up the same columns
            value = self.broadcast(f"{name}_part", value)
        kept = value.kind & kind
        return value if kept == value.kind else self.reduce(name, "sum", value, kept)
