"""The unit that passes transform: a program, or the piece of one that becomes a kernel."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fusegen.program import Program, Reduce, Value

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
    """

    program: Program
    given: tuple[Value, ...] = ()
    fixed: frozenset[str] = frozenset()

    @property
    def sampled(self) -> bool:
        """Whether it runs only over the rows of a sample, to sum these."""
        saved, outputs = self.program.saved, self.program.outputs
        return not outputs and all(isinstance(v, Reduce) and v.sample for v in saved)

    def having(self, program: Program) -> Parts:
        """Return this part with another program, in the form that a pass returns."""
        return (self if program is self.program else replace(self, program=program),)


Parts = tuple[Part, ...]
