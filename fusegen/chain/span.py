"""A run of steps with one layout, which one set of kernels computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fusegen.atoms import HALVES, Partition
from fusegen.chain.layout import Layout
from fusegen.program import Kind
from fusegen.spec.model import Step

__all__ = ["Span"]


@dataclass(frozen=True)
class Span:
    """Consecutive steps with one layout.

    Args:
        steps: the steps.
        layout: which dims are their rows and columns.
        broadcast: the dims along which its activation is larger than the value that reaches it, from the end.
        broadcasters: the operands and values that make it larger: of its first step, and of those after it
            that compute each element by itself.
        expanded: whether that value varies along some of the columns; it is expanded before the operator.
        handed: the values of earlier spans that it uses, each with its kind here.
        left: the dims of what the chain starts from that its activation has, from the end.
        beside_dropped: the operands that only steps name which start from a value without the columns' dims.
        begins: the names of the value that reaches it, if a later span uses that value or it is an output.
        returned: the names of values that it returns beside its last one: for later spans, or as outputs.
        sized: the dims along which a call must pass one of some operands as large as the activation.
        still: the names of those values, its last one included, that get no gradient: later steps only
            compare or detach them.
    """

    steps: tuple[Step, ...]
    layout: Layout
    broadcast: tuple[int, ...] = ()
    broadcasters: tuple[str, ...] = ()
    expanded: bool = False
    handed: Mapping[str, Kind] = field(default_factory=dict)
    left: tuple[int, ...] = ()
    beside_dropped: frozenset[str] = frozenset()
    begins: tuple[str, ...] = ()
    returned: tuple[str, ...] = ()
    sized: tuple[tuple[int, tuple[str, ...]], ...] = ()
    still: frozenset[str] = frozenset()

    @cached_property
    def paired(self) -> bool:
        """Whether each value that varies along a row is computed part by part."""
        return any(step.paired for step in self.steps)

    @cached_property
    def partition(self) -> Partition:
        """How its rows are cut into parts, where they are."""
        return next((s.partition for s in self.steps if s.partition), HALVES)
