"""The passes that a program goes through before it is code, in their order; each has a file of its own.

In: a `Part`, at first the whole program. Out: parts, of which each becomes a kernel.
`fusegen show NAME --passes` says what each of them did to a chain, and `--after PASS` what it left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from fusegen.lower.part import Part, Parts
from fusegen.lower.passes.cut_at_sums import cut_at_sums
from fusegen.lower.passes.leave_out_centred import leave_out_centred
from fusegen.lower.passes.mark_reproduced import mark_reproduced
from fusegen.lower.passes.name_columns import name_columns
from fusegen.lower.passes.regroup_products import regroup_products
from fusegen.lower.passes.share_sums import share_sums
from fusegen.lower.passes.split_sums import split_sums
from fusegen.lower.verify_parts import verify

__all__ = ["PASSES", "Pass", "passed", "run"]


#: A rewrite. Its name is that of its file, and its docstring says what it does.
Pass = Callable[[Part], Parts]

#: In their order. Each says in its file why it is there.
PASSES: tuple[Pass, ...] = (
    name_columns,
    mark_reproduced,
    leave_out_centred,
    split_sums,
    share_sums,
    cut_at_sums,
    regroup_products,
)


def passed(part: Part) -> Iterator[tuple[Pass, Parts]]:
    """Yield each pass with what it leaves.

    With FUSEGEN_VERIFY=1 in the environment, as in the tests, what it leaves is verified.
    """
    parts: Parts = (part,)
    for each in PASSES:
        after = tuple(found for before in parts for found in each(before))
        if os.environ.get("FUSEGEN_VERIFY") == "1":
            verify(each.__name__, parts, after)
        parts = after
        yield each, parts


def run(part: Part) -> Parts:
    """Return what all passes leave of a program."""
    *_, (_, parts) = passed(part)
    return parts
