"""The intermediate representation: a DAG of scalar expressions over values of four kinds.

The activation is viewed as [rows, cols]. A value varies along some of these two axes, and that is its kind:
full [rows, cols], col [cols], row [rows], scalar []. A node is a pointwise sympy expression over other nodes
(`Map`), a reduction to a smaller kind (`Reduce`), or an element of each row (`Take`). A smaller kind in a
larger expression is broadcast.

An operand with one number per channel, such as [C, 1, 1], varies along rows, columns or both, depending on
how the activation's dims become rows and columns (`chain/layout.py`). In a program it has the resulting kind,
as if it had been broadcast; its access says what kind its tensor has (`access.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import sympy as sp

from fusegen.atoms.text import written
from fusegen.program.access import Access, ending
from fusegen.program.kind import Kind


@dataclass(frozen=True, eq=False)
class Value:
    """A value of a program. Two values are the same only if they are the same object."""

    name: str
    kind: Kind

    @property
    def symbol(self) -> sp.Symbol:
        """The symbol of this value in the expressions of other values."""
        return sp.Symbol(self.name, real=True)


#: Where an input comes from: a tensor, a number passed at the call, the random number generator, the
#: activation's own extent, the number of the column, or whether a cotangent is present.
Source = Literal["tensor", "attribute", "random", "extent", "index", "presence"]
#: The shape of an output: the shape of an input, the activation's shape without its columns (the dim dropped,
#: or kept with size 1), the same without its rows, a single number, or one half of a tensor with two.
Outline = Literal["like", "row", "keepdim", "col", "col_keepdim", "scalar", "half"]


@dataclass(frozen=True, eq=False)
class Input(Value):
    """A value that comes from outside.

    Args:
        access: how it lies in its tensor, if it is of one. A presence has the tensor of its cotangent.
        source: where it comes from.
        differentiable: whether `vjp` computes its gradient.
        stream: for a random input, which of the chain's rng streams it is.
    """

    access: Access
    source: Source = "tensor"
    differentiable: bool = True
    stream: int = 0

    @property
    def integer(self) -> bool:
        """Whether its tensor holds int64 numbers."""
        return self.access.stored == "int64"

    @property
    def tensor(self) -> str:
        """The name of the tensor that holds it."""
        return self.access.tensor


@dataclass(frozen=True)
class Whole:
    """The row that a value is one element of.

    The value has that element's bits, and its cotangent goes to the row.

    Args:
        name: the name of the row's value.
        index: an integer input with the element's column for each row.
        elements: pairs of a symbol in the row's expression and the symbol of its element.
    """

    name: str
    index: Input
    elements: tuple[tuple[sp.Symbol, sp.Symbol], ...]


@dataclass(frozen=True, eq=False)
class Map(Value):
    """A pointwise expression over the symbols of `args`.

    Args:
        note: the node's origin, for the comment beside its line.
        whole: the row of which it is an element, if any.
    """

    expr: sp.Expr
    args: tuple[Value, ...]
    note: str = ""
    whole: Whole | None = None


@dataclass(frozen=True, eq=False)
class Reduce(Value):
    """A sum or maximum of `arg` over the axes that its kind has and this value's kind lacks.

    Args:
        shift_invariant: whether the program's results do not depend on it, so that no gradient runs through
            it. Such a sum runs only over the first sixteenth of the rows.
    """

    op: Literal["sum", "max"]
    arg: Value
    shift_invariant: bool = False

    @property
    def sample(self) -> bool:
        """Whether it is a sum over the first rows alone: any rows would do."""
        return self.op == "sum" and self.shift_invariant

    @property
    def axes(self) -> Kind:
        """The axes that it removes."""
        return self.arg.kind & ~self.kind


@dataclass(frozen=True, eq=False)
class Take(Value):
    """The element of each row in the column that the row's `index` names.

    It takes a single load, before the row is read. Taking is pointwise: an element of an expression is the
    expression of the elements (`Builder.take`). So `arg` is never computed from the row. An index outside the
    row takes the first element; whoever uses the element must then select another value.

    Args:
        arg: an input, or a sum over rows with a value for each column.
        index: an integer input with a column's number for each row.
    """

    arg: Value
    index: Input


def kind_of_outline(outline: Outline, whole: Kind = Kind.FULL) -> Kind:
    """Return the axes of a value with an outline, whether or not it varies along them.

    Args:
        outline: the outline.
        whole: the axes of the input that it is like, or of which it has half.
    """
    if outline in ("like", "half"):
        return whole
    if outline == "scalar":
        return Kind.SCALAR
    return Kind.COL if outline in ("col", "col_keepdim") else Kind.ROW


@dataclass(frozen=True)
class Output:
    """A value that a program returns under a name.

    Args:
        value: the value. If its kind is smaller than the output's, it is broadcast.
        like: the input whose kind and shape the output has.
        outline: the output's shape, if it is not "like".
        float32: whether an output of another shape is of float32 where x has 16 bits.
    """

    value: Value
    like: Input
    outline: Outline = "like"
    float32: bool = False

    @property
    def kind(self) -> Kind:
        """The kind of the returned value."""
        return kind_of_outline(self.outline, self.like.kind)

    def access(self, name: str) -> Access:
        """Return how the output with this name lies in its tensor: as the input that it is like does."""
        own = self.like.access
        if self.outline != "like":
            return Access(name, self.kind, stored="computed" if self.float32 else "x")
        return replace(own, tensor=name.removesuffix(ending(own.place)))


@dataclass(frozen=True)
class Shared:
    """A gradient that no kernel writes, since it equals another tensor, number by number.

    Args:
        like: the input that it is the gradient of.
        source: the output or the cotangent that it equals.
    """

    like: Input
    source: str


@dataclass(frozen=True)
class Program:
    """Inputs, and outputs by name. The nodes between them are found from the outputs.

    Args:
        name: what the program computes, such as "forward" or "backward".
        inputs: in the order in which the operator takes them.
        outputs: in the order in which the operator returns them.
        saved: row statistics and totals that the forward pass returns beside its outputs, so that the
            backward pass need not recompute them.
        notes: descriptions of what was left out because it cannot affect any value.
        shared: of a derivative, by name, the gradients that are other tensors of it.
        kept: of the first derivative, by name, the tensors of the forward pass in whose place it takes an
            output of that, with the output's name.
        optional: of a derivative, the cotangents of the forward pass's outputs, some of which may be absent.
        presence: of a derivative, by name, of which of them a gradient is made, if not of any (presence.py).
            Without them it has no value.
    """

    name: str
    inputs: tuple[Input, ...]
    outputs: Mapping[str, Output]
    saved: tuple[Value, ...] = ()
    notes: tuple[str, ...] = ()
    shared: Mapping[str, Shared] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    presence: Mapping[str, frozenset[frozenset[str]]] = field(default_factory=dict)

    def nodes(self, given: Collection[Value] = ()) -> list[Value]:
        """Return every value that the outputs need if some are given, each after its arguments."""
        return topological(
            (*(out.value for out in self.outputs.values()), *self.saved),
            lambda value: () if value in given else arguments(value),
        )

    def named(self, names: Collection[str]) -> tuple[Value, ...]:
        """Return the values that the outputs need and that have one of some names."""
        return tuple(v for v in self.nodes() if v.name in names)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors that hold tensor inputs, in order."""
        return tuple(dict.fromkeys(i.tensor for i in self.inputs if i.source == "tensor"))

    @property
    def returned(self) -> Mapping[str, Output]:
        """The outputs that stand for a returned tensor: of several parts, only the first."""
        found = self.outputs.items()
        return {n: o for n, o in found if not o.access(n).place}

    def __str__(self) -> str:
        head = ", ".join(f"{v.name}: {v.access.kind.label}" for v in self.inputs)
        lines = [f"{self.name}({head})"]
        lines += [f"  {describe(v)}" for v in self.nodes() if not isinstance(v, Input)]
        lines += [f"  ({note})" for note in self.notes]
        lines += [
            f"  -> {name}: {o.access(name).kind.label} = {o.value.name}"
            for name, o in self.outputs.items()
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


def topological(
    roots: Iterable[Value], below: Callable[[Value], Iterable[Value]] = arguments
) -> list[Value]:
    """Return the roots and everything they need, arguments first. `below` returns a value's arguments."""
    found: dict[Value, None] = {}
    stack: list[tuple[Value, Iterator[Value]]] = []
    for root in roots:
        stack.append((root, iter(below(root))))
        while stack:
            value, rest = stack[-1]
            if value in found:
                stack.pop()
                continue
            following = next((a for a in rest if a not in found), None)
            if following is None:
                found[value] = None
                stack.pop()
            else:
                stack.append((following, iter(below(following))))
    return list(found)


def depths(
    program: Program, given: Collection[Value], waits: Callable[[Value], bool]
) -> dict[Value, int]:
    """Return how many of the values that `waits` selects each value waits for, one after another.

    A selected value counts itself. Inputs and `given` values are known from the start; values that only feed
    them are left out. Arguments come first.
    """
    found: dict[Value, int] = {}
    for value in program.nodes(given):
        if isinstance(value, Input) or value in given:
            found[value] = 0
        else:
            found[value] = max((found[a] for a in arguments(value)), default=0) + waits(value)
    return found


def describe(value: Value) -> str:
    """Return one line that describes the value."""
    if isinstance(value, Map):
        return f"{value.name}: {value.kind.label} = {written(value.expr)}"
    if isinstance(value, Reduce):
        over = ", ".join(value.axes.extents)
        note = ", shift-invariant" if value.shift_invariant else ""
        first = "the first " if value.sample else ""
        reduced = f"{value.op}({value.arg.name} over {first}{over}{note})"
        return f"{value.name}: {value.kind.label} = {reduced}"
    if isinstance(value, Take):
        taken = f"take({value.arg.name}, {value.index.name})"
        return f"{value.name}: {value.kind.label} = {taken}"
    return f"{value.name}: {value.kind.label}"
