"""What a pass takes and gives: a program, or the piece of one that a kernel computes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fusegen.program import Program, Value

__all__ = ["Part", "Parts"]


@dataclass(frozen=True)
class Part:
    """A program on its way to a kernel.

    Args:
        program: what is computed. After the cut its saved values are those of the whole, and the sums that it
            hands on.
        given: what is loaded, not computed: what the forward pass saved, and the sums of the parts before.
        fixed: the names of the values that have the same bits in every operator (`mark_reproduced.py`).
        sampled: whether it runs over the rows of a sample alone.
    """

    program: Program
    given: tuple[Value, ...] = ()
    fixed: frozenset[str] = frozenset()
    sampled: bool = False

    def having(self, program: Program) -> Parts:
        """Return this part with another program, as what a pass gives."""
        return (self if program is self.program else replace(self, program=program),)


Parts = tuple[Part, ...]
