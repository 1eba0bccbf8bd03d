"""The tensors beside x that a segment's steps name: their kinds, their shapes, and their owners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from fusegen.atoms.halves import parts_held
from fusegen.base.errors import SpecError
from fusegen.chain.layout import Layout, channel_from_end
from fusegen.chain.span import Span
from fusegen.chain.third_axis import kind_along, kind_of_dims
from fusegen.program import WHOLE, Access, Kind, Stored
from fusegen.spec.columns import columns_problem
from fusegen.spec.model import Operand, Ref, Spec, Step


@dataclass(frozen=True)
class SegmentOperand:
    """A tensor that the chain names.

    Args:
        name: its name in `apply`.
        code: its name in generated C++.
        kind: its kind.
        differentiable: whether it gets a gradient.
        owner: where a `Module` finds it, such as "matmul.bias", or None for an input of `forward`.
        integer: whether it holds int64 numbers: one per row, in the activation's shape without the row's
            dims.
        parts: how many parts of a row it holds, which kernels read one by one, as they read x.
        mask: whether it is of bool; kernels read it as 0 and 1 in x's dtype.
        float32: whether it is of float32 where x has 16 bits.
        handed: whether an earlier segment hands it on, so that `apply` does not take it.
        dims: the dims along which it varies, counted from the end, if the spec lists them.
        channels: whether it has one number per channel, whatever its kind is.
        beside_dropped: whether torch aligns it with a value without the columns' dims: only steps after a
            reduction that drops these name it.
        axis: the dims to which it is expanded before kernels read it, if it has one number per channel and
            the segment's third axis is longer.
    """

    name: str
    code: str
    kind: Kind
    differentiable: bool
    owner: str | None
    integer: bool = False
    parts: int = 1
    handed: bool = False
    mask: bool = False
    float32: bool = False
    dims: tuple[int, ...] | None = None
    axis: tuple[int, ...] = ()
    channels: bool = False
    beside_dropped: bool = False

    @property
    def on_axis(self) -> bool:
        """Whether kernels read it by a third axis beside rows and columns: the channels, or the layout's."""
        return self.kind is Kind.CHANNEL

    @property
    def called(self) -> str:
        """Its kind as the generated package declares it: a word, or the dims along which it varies."""
        dims = self.axis or (self.dims if self.on_axis else None)
        return f"({', '.join(map(str, dims))},)" if dims is not None else f'"{self.kind.label}"'

    @property
    def alone(self) -> tuple[int, ...]:
        """The dims with which alone a call may pass it, if it is not by these that torch aligns it."""
        own = self.dims or ()
        return () if own == tuple(range(-len(own), 0)) else own

    def access(self, layout: Layout) -> Access:
        """Return how its values lie in it; if each column has its own channel, it varies along columns."""
        stored: Stored = "int64" if self.integer else "computed" if self.float32 else "x"
        partition = layout.partition._replace(parts=self.parts) if self.parts > 1 else WHOLE
        kind = self.kind if layout.spreads else layout.kind_of(self.kind)
        return Access(self.code, kind, partition, stored=stored)

    def shape(self, x: Sequence[int], layout: Layout) -> tuple[int, ...]:
        """Return its shape for an x of this shape; [C] if a submodule has one number per channel."""
        activation = layout.with_parts(x, self.parts)
        if self.integer:
            return layout.shape_after(x, "row")
        if self.kind is Kind.SCALAR and self.dims is None:
            return (1,)
        layout = replace(layout, axis=()) if self.axis else layout  # before it is expanded
        own = self.dims if self.dims is not None else layout.dims_of(self.kind, range(-len(x), 0))
        sizes = tuple(activation[dim] if dim in own else 1 for dim in range(-len(x), 0))
        if self.dims is not None or Kind.ROW in self.kind:
            return sizes
        held = self.owner is not None and self.owner != self.name
        return sizes[min(own) :][: len(own) if held and self.on_axis else None]


def operands_of(spec: Spec, span: Span) -> tuple[SegmentOperand, ...]:
    """Return the tensors that the steps name, each at its first use.

    x comes first if the activation is larger than it; values of earlier segments come last.
    """
    steps, layout = span.steps, span.layout
    declared = {o.name: o for o in spec.operands}
    found: dict[str, SegmentOperand] = {}
    if span.broadcast:
        kind = Kind.FULL if span.expanded else Kind.ROW
        found["x"] = SegmentOperand("x", "x", kind, differentiable=True, owner=None, handed=True)
    split = next((n for n, step in enumerate(steps) if step.split), 0)
    for number, step in enumerate(steps):
        whole = number < split
        found |= {o.name: o for o in _of_submodule(spec, span, step, whole=whole)}
        for operand in (declared[name] for name in step.tensors if name in declared):
            own, before = _of_spec(spec, span, step, operand, whole=whole), found.get(operand.name)
            if before is not None and before.parts != own.parts:
                raise _of_two_widths(spec, step, operand.name)
            moves = own.differentiable or (before is not None and before.differentiable)
            found[operand.name] = replace(own, differentiable=moves)
    for name, kind in span.handed.items():
        kind = _resolved(kind, layout)
        found[name] = SegmentOperand(
            name, spec.code(name), kind, True, None, handed=True, parts=_parts_of_rows(span, kind)
        )
    return tuple(_along_axis(operand, layout) for operand in found.values())


def _of_submodule(spec: Spec, span: Span, step: Step, *, whole: bool) -> Iterator[SegmentOperand]:
    """Yield the tensors that a step keeps in a submodule.

    Args:
        spec: the spec.
        span: the step's span.
        step: the step.
        whole: whether it takes all parts of x.
    """
    if step.op is None or step.op.submodule is None:
        return
    held, layout = step.op.submodule, span.layout
    for name, attribute in step.state.items():
        channels = name in step.of_channels
        own = Kind.CHANNEL if channels else step.op.operands[name]
        assert own is not None
        dims = (step.channel,) if step.is_source and step.channel < 0 <= layout.rank - 3 else None
        kind = _resolved(own if dims is None else kind_of_dims(dims, layout), layout)
        parts = _parts_beside_x(layout, kind, dims) if whole else _parts_of_rows(span, kind)
        yield SegmentOperand(
            f"{step.label}_{attribute}",
            f"{spec.code(step.label)}_{attribute}",
            Kind.FULL if parts > 1 and kind is Kind.ROW else kind,  # it is expanded
            differentiable=attribute not in held.buffers,
            owner=f"{step.place}.{attribute}",
            parts=parts,
            float32=step.float32,
            dims=dims,
            channels=channels and dims is None,
        )


def _of_spec(
    spec: Spec, span: Span, step: Step, operand: Operand, *, whole: bool
) -> SegmentOperand:
    """Return an operand of the spec that a step names.

    Args:
        spec: the spec.
        span: the step's span.
        step: the step.
        operand: the operand.
        whole: whether the step takes all parts of x.

    Raises:
        SpecError: it has another size than the rows, or would be of float32 and as large as x.
    """
    name, layout = operand.name, span.layout
    kind = _resolved(kind_along(operand, layout), layout)
    parts = _parts_of(spec, span, step, name) if _parts_of_rows(span, kind) > 1 else 1
    if whole:
        parts = _parts_beside_x(layout, kind, operand.dims)
        kind = Kind.FULL if parts > 1 and kind is Kind.ROW else kind  # it is expanded
    wrong = columns_problem(operand, spec.arguments, layout.first, layout.last)
    if kind is Kind.FULL and operand.float32:
        wrong = (
            f"{name!r} is expanded to all elements for {step.label}, and these have x's dtype: leave "
            "dtype out"
        )
    if wrong:
        raise SpecError(wrong, spec.path, operand.line)
    return SegmentOperand(
        name,
        spec.code(name),
        kind,
        differentiable=not operand.constant and name not in _constants_of(step),
        owner=None if operand.init is None else name,
        integer=operand.integer,
        mask=operand.mask,
        float32=operand.float32,
        parts=parts,
        dims=operand.dims,
        channels=operand.of_channels,
        beside_dropped=name in span.beside_dropped and is_aligned(operand),
    )


def is_aligned(operand: Operand) -> bool:
    """Whether torch aligns an operand with the value that it meets: a class has a row, and others a name for
    the dims along which they vary."""
    return not operand.integer and (operand.dims is not None or operand.kind is Kind.ROW)


def _parts_of_rows(span: Span, kind: Kind) -> int:
    """Return how many parts what varies along a row has in a span that computes rows part by part."""
    return span.partition.parts if span.paired and Kind.COL in kind else 1


def _along_axis(operand: SegmentOperand, layout: Layout) -> SegmentOperand:
    """Return an operand that says to what it is expanded, if its numbers are fewer than the third axis.

    Kernels then write a gradient for each place on the axis, whose sum torch takes. The terms may cancel, so
    those of a norm's parameters are of float32: in 16 bits each would be rounded, which torch's norms do not.
    """
    if not operand.on_axis or layout.axis in ((), operand.dims):
        return operand
    held = operand.owner not in (None, operand.name)
    return replace(operand, axis=layout.axis, float32=held or operand.float32)


def _parts_beside_x(layout: Layout, kind: Kind, dims: Sequence[int] | None = None) -> int:
    """Return how many parts an operand has beside an x with several: all, or one along other dims."""
    along = layout.dims_of(kind) if dims is None else dims
    return layout.partition.parts if layout.halved in along else 1


def _parts_of(spec: Spec, span: Span, step: Step, name: str) -> int:
    """Return how many parts of a row an operand holds, from the formula of a step that names it.

    Raises:
        SpecError: the formula takes it in two widths.
    """
    if not step.paired:
        return span.partition.parts
    held = parts_held(step.expr, span.partition)
    named = (n for n, r in step.operands.items() if isinstance(r, Ref) and r.name == name)
    counts = {count for n in named for count in held.get(sp.Symbol(n, real=True), ())}
    if len(counts) > 1:
        raise _of_two_widths(spec, step, name)
    return counts.pop() if counts else span.partition.parts


def _of_two_widths(spec: Spec, step: Step, name: str) -> SpecError:
    """Return the error of an operand that is as wide as a row, and as a part of it."""
    message = (
        f"{step.label}: {name!r} is as wide as x for one step, and as a part of it for another: declare an "
        "operand for each"
    )
    return SpecError(message, spec.path, step.line)


def _constants_of(step: Step) -> list[str]:
    """Return the operands of a step through which no gradient runs."""
    constant = step.op.constant if step.op else ()
    return [r.name for n, r in step.operands.items() if n in constant and isinstance(r, Ref)]


def _resolved(kind: Kind, layout: Layout) -> Kind:
    """Return an operand's kind. If the channel is the last dim and is not split, that is a column's kind.

    Where the columns are no neighbours, the channel is one of the rows' or the columns' dims.
    """
    if layout.apart and kind is Kind.CHANNEL:
        own = {channel_from_end(layout.rank)}
        return next((k for k in (Kind.ROW, Kind.COL) if layout.dims_of(k) >= own), Kind.FULL)
    if layout.rank < 3 and layout.last == -1 and kind in (Kind.CHANNEL, Kind.COL):
        return Kind.COL if layout.groups is None else Kind.CHANNEL
    return kind
