"""Writes a chain as Python text that runs each step by torch itself, and calls every submodule.

A generated `Module` runs this if a submodule inside the fused kernels is more than its parameters: it has
hooks, another class, or changed attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import sympy as sp

from fusegen import ops
from fusegen.chain.cut_into_segments import spans_of
from fusegen.chain.dims_of_values import places_of
from fusegen.chain.operands import is_aligned
from fusegen.chain.outline import names_reduced
from fusegen.chain.span import Span
from fusegen.ops import Op
from fusegen.program import Kind
from fusegen.render.module_forward import factors_of, parameters_of
from fusegen.render.places import kept_at
from fusegen.render.torch_text import TorchText
from fusegen.spec.cut import START
from fusegen.spec.model import INPUT, Ref, Spec, Step

#: The variable with the number of dims of the value that a span starts with.
_RANK = "rank_"


def stepwise_lines(
    spec: Spec,
    tensors: Mapping[str, str],
    numbers: Mapping[str, str],
    cuts: Sequence[str] = (),
    along: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> list[str]:
    """Return the lines that compute the chain's value from `x`, and leave it in `x`.

    Other outputs are left in variables with the names of their steps.

    Args:
        spec: the spec.
        tensors: the text of each declared operand.
        numbers: the text of each argument that steps take.
        cuts: the lines that take operands apart, which read the shape of what the source gives.
        along: the dims of those operands that a call may pass with these alone.
    """
    writer = _Writer(spec, tensors, numbers)
    first, *later = spans_of(spec)
    writer.align(first, along)
    writer.beside = [*cuts, *writer.place(first, along)]
    if not spec.steps[0].is_source:
        writer.lines += writer.beside
    writer.add_span(first)
    for span in later:
        writer.align(span, along)
        writer.lines += writer.place(span, along)
        writer.add_span(span)
    return writer.lines


class _Writer:
    """Writes the steps one after another.

    Attributes:
        lines: the lines so far.
        beside: those that make operands ready, once x is the activation.
        reduced: whether the value may have lost dims since the span began.
        dropped: the operands that torch aligns with a value which lost dims, each with those of its dims that
            it may have alone.
        wide: whether the step is computed in float32 where x has 16 bits, because an operand or its value is
            of float32.
    """

    def __init__(self, spec: Spec, tensors: Mapping[str, str], numbers: Mapping[str, str]) -> None:
        self.spec, self.tensors, self.numbers = spec, dict(tensors), numbers
        self.lines: list[str] = []
        self.beside: list[str] = []
        self.reduced = self.wide = False
        self.dropped: dict[str, tuple[int, ...]] = {}
        self.float32 = {o.name for o in spec.operands if o.float32}
        self.mentioned = {name for step in spec.steps for name in step.mentions}
        self.mentioned |= spec.further_outputs
        # After a source, the chain's input is an operand.
        taken = {name for step in spec.steps for name in step.tensors}
        own_input = spec.number < 2  # a later chain is called with it
        if own_input and INPUT in self.mentioned | taken:
            self.lines.append(f"{INPUT} = x")
            self.tensors[INPUT] = INPUT

    def align(self, span: Span, along: Mapping[str, tuple[int, ...]]) -> None:
        """Note the operands of a span that torch aligns with a value without its columns' dims."""
        columns, rank = span.layout.columns, span.layout.rank
        places = places_of([dim for dim in range(-rank, 0) if dim not in columns])
        aligned = {o.name for o in self.spec.operands if is_aligned(o)}
        self.dropped = {
            name: tuple(places[d] for d in along.get(name, ()) if d in places)
            for name in span.beside_dropped & aligned
        }

    def place(self, span: Span, along: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Return the lines that give operands which a span is the first to use the dims of its activation."""
        used = {name for step in span.steps for name in step.tensors}
        lines = []
        for place, (name, dims) in enumerate(along.items()):
            own = f"along{place}_"
            if name in used - {*self.dropped} and self.tensors[name] != own:
                lines.append(f"{own} = along_dims({self.tensors[name]}, {dims}, x.shape)")
                self.tensors[name] = own
        return lines

    def add_span(self, span: Span) -> None:
        """Add the lines of a span's steps."""
        self.reduced = False
        used = {name for step in span.steps for name in step.tensors}
        rows = [o.name for o in self.spec.operands if o.kind is Kind.ROW and not o.integer]
        for place, name in enumerate(rows):
            if name in used - {*self.dropped}:
                self.tensors[name] = f"rows{place}_"
                self.lines.append(f"rows{place}_ = in_rows(x, {name}, {span.layout.columns})")
        start = len(self.lines)
        for step in span.steps:
            self.add(step, span)
        if any(f", {_RANK})" in line for line in self.lines[start:]):
            self.lines.insert(start, f"{_RANK} = x.dim()")

    def add(self, step: Step, span: Span) -> None:
        """Add the lines of a step."""
        if step.op is START:
            if step.label in self.mentioned:
                self.lines.append(f"{step.label} = x")
                self.tensors[step.label] = step.label
            self.lines += self.beside
            return
        returned = step.label in self.spec.float32
        self.wide = returned or not self.float32.isdisjoint(step.tensors)
        if self.wide:
            self.lines.append("x, dtype_ = widened(x), x.dtype")
        value = self._step(step, span)
        if (
            step.indexes and step is not self.spec.steps[-1]
        ):  # the next step goes on from other values
            self.lines.append(f"{step.label} = {value}")
            self.lines += ["x = x.to(dtype_)"] * self.wide
            return
        self.lines.append(f"x = {value}")
        self.lines += self.beside if step.is_source else ()
        if self.wide and not returned:
            self.lines.append("x = x.to(dtype_)")
        self.reduced = self.reduced or _reduces(step)
        if step.label in self.mentioned:
            self.lines.append(f"{step.label} = x")
            self.tensors[step.label] = step.label
        if returned and step is not self.spec.steps[-1]:
            self.lines.append("x = x.to(dtype_)")

    def _step(self, step: Step, span: Span) -> str:
        """Return the text of a step's value."""
        op, columns = step.op, span.layout.columns
        if op is None:
            assert step.formula is not None
            names = {n: self._tensor(ref, columns) for n, ref in step.operands.items()}
            tensors = [n for n, ref in step.operands.items() if _is_tensor(ref)]
            reduced = [n for n in names_reduced(step.formula) if n == "x" or n in tensors]
            return self._formula(step.formula, names, columns, reduced)
        if op.submodule:
            return f"{kept_at(step)}(x)"
        if op.source:
            factors = factors_of(step, parameters_of(self.spec))
            return f"torch.{op.torch}({', '.join(['x', *factors])})"
        if step.split:
            others = [f"split{n}_" for n in range(1, 1 + len(step.split))]
            parts = f"x.chunk({1 + len(others)}, {self.spec.halved})"
            if step.attributes["alternating"]:
                parts = "x[..., ::2], x[..., 1::2]"
            self.lines.append(f"{', '.join(['x', *others])} = {parts}")
            for part, text in zip(step.parts, ["x", *others], strict=False):
                if part in self.mentioned:
                    self.lines.append(f"{part} = {text}")
                    self.tensors[part] = part
            return self._own_formula(step, span, dict(zip(step.split, others, strict=True)))
        attributes = step.attributes
        if not op.is_in_torch(attributes):
            return self._own_formula(step, span, {})
        return self._call(step, op, columns)

    def _call(self, step: Step, op: Op, columns: tuple[int, ...]) -> str:
        """Return a call of the torch function that the step's op equals."""
        arguments = ["x"]
        if op.takes_shape:
            arguments.append("normalized_shape=x.shape[-1:]")
        for name in op.operands:
            text = self._place(step.operand(name), columns)
            if op.is_alike(name) and _is_tensor(step.operand(name)):
                text = f"as_large_as({text}, x)"
            elif op.takes_tensors and not _is_tensor(step.operand(name)) and text != "None":
                text = f"torch.full_like(x, {text})" if op.takes_alike else f"x.new_tensor({text})"
            elif op.optional and not _is_tensor(step.operand(name)) and text != "None":
                sizes = "x.shape[-1:]" if op.takes_shape else "(x.shape[1],)"
                text = f"x.new_full({sizes}, {text})"
            if op.optional:
                held = isinstance(step.operand(name), Ref) and name in op.of_channels
                arguments.append(f"{name}={text}{'.flatten()' if held else ''}")
            elif name in op.conditions:
                arguments.append(f"{text} != 0")
            else:
                arguments.append(text)
        for name, value in step.attributes.items():
            if name not in op.own:
                text = self.numbers[value.name] if isinstance(value, Ref) else _literal(value)
                arguments.append(f"{name}={text}")
        value = ".values" if op.name in ("max", "min") else ""
        return f"torch.{op.torch}({', '.join(arguments)}){value}"

    def _own_formula(self, step: Step, span: Span, given: Mapping[str, str]) -> str:
        """Return the value of an op without a torch function."""
        op, columns = step.op, span.layout.columns
        assert op is not None
        symbols = {name: sp.Symbol(name, real=True) for name in op.operands}
        attributes = {
            name: sp.Symbol(value.name, real=True) if isinstance(value, Ref) else value
            for name, value in step.attributes.items()
        }
        expr = ops.call(op, sp.Symbol("x", real=True), symbols, attributes)
        names = {n: f"x.new_tensor({text})" for n, text in self.numbers.items()}
        for name in op.operands:
            if name in given:
                names[name] = given[name]
            elif name == op.classes:
                held = self._place(step.operand(name), ())
                names[name] = f"one_a_row({held}, x, {columns}{self._rank})"
            else:
                names[name] = self._tensor(step.operand(name), columns)
        return self._formula(expr, names, columns)

    def _formula(
        self,
        expr: sp.Basic,
        names: Mapping[str, str],
        columns: tuple[int, ...],
        reduced: Sequence[str] = ("x",),
    ) -> str:
        """Return the text of a formula's value, after the assignments that it needs.

        Args:
            expr: the formula.
            names: the text of each symbol but x.
            columns: the dims that make up a row.
            reduced: the names of the tensors in what it reduces, which say how long a row is.
        """
        shape = "x.shape"
        if reduced and [*reduced] != ["x"]:
            shapes = [f"{ {**names, 'x': 'x'}[name] }.shape" for name in reduced]
            self.lines.append(f"shape_ = torch.broadcast_shapes({', '.join(shapes)})")
            shape = "shape_"
        cols = " * ".join(f"{shape}[{dim}]" for dim in columns)
        extents = {"cols": f"({cols})", "rows": f"(x.numel() // ({cols}))"}
        numbers = {"column": f"column_numbers(x, {columns}{self._rank})"}
        text = TorchText({**extents, **numbers, **names, "x": "x"}, columns)
        found = text.write(expr)
        self.lines += text.lines
        return found

    @property
    def _rank(self) -> str:
        """The argument of helpers that says how many dims x had, if it may have lost some."""
        return f", {_RANK}" if self.reduced else ""

    def _tensor(self, value: Ref | float | None, columns: tuple[int, ...]) -> str:
        """Return the text of the value for an operand, as a tensor."""
        text = self._place(value, columns)
        return text if _is_tensor(value) else f"x.new_tensor({text})"

    def _place(self, value: Ref | float | None, columns: tuple[int, ...]) -> str:
        """Return the text of the value for an operand."""
        if not isinstance(value, Ref):
            return _literal(value)
        if value.is_argument:
            return self.numbers[value.name]
        text = self.tensors[value.name]
        text = f"widened({text})" if self.wide else text
        if not (self.reduced and columns):
            return text
        if value.name in self.dropped:
            dims = self.dropped[value.name]
            return f"beside_dropped(x, {text}, {columns}{f', {dims}' if dims else ''})"
        if value.is_step:
            return f"beside(x, {text}, {columns})"
        return f"operand_beside(x, {text}, {columns}, {_RANK})"


def _literal(value: object) -> str:
    """Return a number or another attribute as Python text."""
    infinite = isinstance(value, float) and not math.isfinite(value)
    return f'float("{value}")' if infinite else repr(value)


def _is_tensor(value: Ref | float | None) -> bool:
    """Whether an operand's place holds a tensor, not a number."""
    return isinstance(value, Ref) and not value.is_argument


def _reduces(step: Step) -> bool:
    """Whether a step may remove dims."""
    if step.op is None:
        return False
    return step.attributes.get("keepdim") is False or "reduction" in step.attributes
