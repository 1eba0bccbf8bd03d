"""The passes that turn a program into parts, in order. Each has its own file.

They begin with a `Part` that holds the whole program, and end with parts that each become a kernel. `fusegen
show NAME --passes` shows what each pass did to a chain; `--after PASS` shows the result of one.
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


#: A rewrite. Its name is that of its file; its docstring says what it does.
Pass = Callable[[Part], Parts]

#: The passes in order. Each file says why its pass exists.
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
    """Yield each pass with the parts that it returns.

    With FUSEGEN_VERIFY=1 in the environment, as in the tests, these parts are verified.
    """
    parts: Parts = (part,)
    for each in PASSES:
        after = tuple(found for before in parts for found in each(before))
        if os.environ.get("FUSEGEN_VERIFY") == "1":
            verify(each.__name__, parts, after)
        parts = after
        yield each, parts


def run(part: Part) -> Parts:
    """Return the parts after all passes."""
    *_, (_, parts) = passed(part)
    return parts
