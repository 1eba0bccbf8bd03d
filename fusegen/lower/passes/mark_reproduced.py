"""Which values every operator computes with the same bits.

The forward pass saves maxima, sums and statistics. Its derivatives compute again what those were taken of.
They compare it with the saved maximum, subtract the saved mean from it, or divide its exponential by the
saved sum. A value that differs in its last bit is no tie any more, and 0 ties make a NaN. At |x| = 1000 that
bit moves exp(x - max) by 1e-4, while the saved sum stays.

So the rule is: what a saved value is computed from has the same bits in every operator. Three things keep it.
Passes leave those values alone (`regroup_products.py`). Their arithmetic is arranged before they share parts
with others (`lower/arithmetic.py`). Compilers neither reorder nor fuse (`toolchain/compilers.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fusegen.lower.part import Part, Parts
from fusegen.program import Map, Program, Value, topological


def mark_reproduced(part: Part) -> Parts:
    """Name the values that later passes leave alone."""
    return (replace(part, fixed=reproduced(part.program, part.given)),)


def reproduced(program: Program, given: Collection[Value] = ()) -> frozenset[str]:
    """Return the names of the values that a saved value is computed from.

    Args:
        program: the forward pass or a derivative, which has the forward pass's values among its own.
        given: what a derivative is given; the forward pass itself says what it saves.
    """
    roots = (*given, *program.saved)
    return frozenset(value.name for value in topological(roots) if isinstance(value, Map))
