"""The unit that passes transform: a program, or the piece of one that becomes a kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fusegen.program import Program, Value

__all__ = ["Part", "Parts"]


@dataclass(frozen=True)
class Part:
    """A program on its way to a kernel.

    Args:
        program: what to compute. After the cut, its saved values are those that the whole program saves, and
            the sums that later parts need.
        given: values that are loaded, not computed: values that the forward pass saved, and sums of earlier
            parts.
        fixed: the names of the values that must have the same bits in every operator (`mark_reproduced.py`).
        sampled: whether it runs only over the rows of a sample.
    """

    program: Program
    given: tuple[Value, ...] = ()
    fixed: frozenset[str] = frozenset()
    sampled: bool = False

    def having(self, program: Program) -> Parts:
        """Return this part with another program, in the form that a pass returns."""
        return (self if program is self.program else replace(self, program=program),)


Parts = tuple[Part, ...]
