"""Finds the dims in which operands alone make a value as large as the activation, after a reduction.

Kernels broadcast each operand to its kind, so that one which a call passes with size 1 counts as repeated.
Beside what is as large as the activation that changes nothing. But a value that has its size from operands
alone would be larger than in torch, if all of them have size 1, and a sum of it would count copies: such a
call is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sympy as sp

from fusegen.atoms.axes import axes_of
from fusegen.atoms.rows import Reduction
from fusegen.chain.dims_of_values import Dims, Extent, operand_dims, placed
from fusegen.chain.layout_of_steps import reduces
from fusegen.chain.span import Span
from fusegen.spec.model import Operand, Step

__all__ = ["sizes_of_operands"]


@dataclass(frozen=True)
class Source:
    """What makes a value larger along a dim.

    Args:
        dim: the dim, counted from the end.
        operand: the operand, or "" for what is as large as the activation in any call.
        direct: whether the operand stands for itself, not for the value of a step.
    """

    dim: int
    operand: str = ""
    direct: bool = False


Sources = frozenset[Source]


def sizes_of_operands(
    span: Span,
    value: Extent,
    extents: Mapping[str, tuple[Extent, Extent]],
    declared: Mapping[str, Operand],
) -> tuple[tuple[int, tuple[str, ...]], ...]:
    """Return the dims along which a call must pass one of some operands as large as the activation.

    Args:
        span: the span.
        value: the extent of what reaches it.
        extents: of each step, the extent of what it starts from, and that of its value.
        declared: the spec's operands.
    """
    walk = _Walk(span, value, declared)
    for step in span.steps:
        walk.take(step, *extents[step.label])
    leaving = {span.steps[-1].label, *span.returned}
    for sources in (walk.named[name] for name in leaving if name in walk.named):
        walk.need(_by_dim(sources))
    # What makes the activation larger has its size.
    needed = [
        (dim, tuple(sorted(names)))
        for dim, names in walk.needed
        if dim not in span.broadcast or not names.issuperset(span.broadcasters)
    ]
    return tuple(sorted(needed))


class _Walk:
    """Follows the sources of the value from step to step."""

    def __init__(self, span: Span, value: Extent, declared: Mapping[str, Operand]) -> None:
        self.span, self.declared = span, declared
        self.value = _whole(value.varies)
        self.named: dict[str, Sources] = {}
        self.needed: set[tuple[int, frozenset[str]]] = set()

    def take(self, step: Step, start: Extent, after: Extent) -> None:
        """Follow a step."""
        given = {name: self._sources(name, start) for name in (*step.tensors, *step.mentions)}
        if step.formula is not None:
            found = self._of_formula(step, given, start)
        else:
            self.need(
                _by_dim(frozenset(s for s in self.value if s.dim in self._reduced(step, start)))
            )
            found = self.value.union(*given.values())
        if after.rank != start.rank:
            found = _whole(after.varies)  # nothing is larger along the dims that are left
        known = {s.dim for s in found}
        # A dim whose source is not known is taken for the activation's.
        found |= _whole(frozenset(after.varies - known))
        kept = frozenset(Source(s.dim, s.operand) for s in found if s.dim in after.varies)
        self.named |= dict.fromkeys(step.parts, self.value)
        self.named[step.label] = kept
        if not step.indexes:
            self.value = kept

    def need(self, found: Iterator[tuple[int, Sources]]) -> None:
        """Note the dims along which a value needs the size of operands."""
        for dim, sources in found:
            if all(source.operand for source in sources):
                self.needed.add((dim, frozenset(source.operand for source in sources)))

    def _sources(self, name: str, start: Extent) -> Sources:
        """Return the sources of an operand or an earlier value."""
        if name in self.declared:
            own = placed(self.declared[name], start.left)
            dims = operand_dims(own, start.rank, self.span.layout.columns)
            return frozenset(Source(dim, name, direct=True) for dim in dims)
        return self.named.get(name, _whole(frozenset(range(-start.rank, 0))))

    def _of_formula(self, step: Step, given: Mapping[str, Sources], start: Extent) -> Sources:
        """Return the sources of a formula. What it reduces of operands is as large as they are declared."""
        assert step.formula is not None
        none: Sources = frozenset()
        known = {sp.Symbol(name, real=True): sources for name, sources in given.items()}
        known[sp.Symbol("x", real=True)] = self.value
        over = self._reduced(step, start)

        def reduced(_: Reduction, inner: Sources) -> Sources:
            inside = frozenset(s for s in inner if s.dim in over)
            self.need((d, own) for d, own in _by_dim(inside) if any(not s.direct for s in own))
            return inner - inside

        return axes_of(step.formula, lambda s: known.get(s, none), reduced, none)

    def _reduced(self, step: Step, start: Extent) -> Dims:
        """Return the dims that a step reduces, or normalises."""
        columns, every = frozenset(self.span.layout.columns), frozenset(range(-start.rank, 0))
        if step.op is None:
            return columns
        if step.attributes.get("reduction", "none") != "none":
            return every
        named = [step.attributes[name] for name in step.op.dims]
        if step.op.dims and all(dim is None for dim in named):
            return every  # as a sum without a dim
        if step.op.trained:
            return every - columns
        return columns if reduces(step) else frozenset()


def _whole(dims: Dims) -> Sources:
    return frozenset(Source(dim) for dim in dims)


def _by_dim(sources: Sources) -> Iterator[tuple[int, Sources]]:
    """Yield each dim with its sources."""
    for dim in sorted({source.dim for source in sources}):
        yield dim, frozenset(source for source in sources if source.dim == dim)
