"""Marks the values that every operator must compute with the same bits.

The forward pass saves maxima, sums and other statistics. Its derivatives recompute the values from which
these were taken. They compare such a value with the saved maximum, subtract the saved mean from it, or divide
its exponential by the saved sum. A value that differs in its last bit no longer ties with the maximum, and 0
ties make a NaN. If |x| is 1000, the last bit changes exp(x - max) by 1e-4, while the saved sum stays the
same.

So the rule is: every value that a saved value depends on has the same bits in every operator. Three things
ensure it. Passes leave those values alone (`regroup_products.py`). Their arithmetic is arranged before they
share parts with others (`lower/arithmetic.py`). Compilers neither reorder nor fuse
(`toolchain/compilers.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fusegen.lower.part import Part, Parts
from fusegen.program import Map, Program, Value, topological


def mark_reproduced(part: Part) -> Parts:
    """Record the names of the values that later passes must leave alone."""
    return (replace(part, fixed=reproduced(part.program, part.given)),)


def reproduced(program: Program, given: Collection[Value] = ()) -> frozenset[str]:
    """Return the names of the values that a saved value depends on.

    Args:
        program: the forward pass, or a derivative; a derivative contains the forward pass's values.
        given: the saved values that a derivative is given. A forward pass lists them itself.
    """
    roots = (*given, *program.saved)
    return frozenset(value.name for value in topological(roots) if isinstance(value, Map))
