"""torch.compile for the comparison: static shapes, whole graphs, and no silent fallback to eager."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fusegen.tools.bench.timing import Prepare

#: The modes that are measured, by their label in a cell.
MODES = {"compile": None, "compile_max_autotune": "max-autotune-no-cudagraphs"}

_LIMIT = 1_000  # recompilations; each group starts from none


def set_up(*, one_thread: bool = False) -> None:
    """Configure compilation: its cache on disk, and limits that are never reached.

    Args:
        one_thread: compile only in this process, if several processes run at once.
    """
    from torch._dynamo import config as dynamo
    from torch._inductor import config as inductor

    dynamo.recompile_limit = _LIMIT
    dynamo.accumulated_recompile_limit = _LIMIT
    if hasattr(dynamo, "fail_on_recompile_limit_hit"):
        dynamo.fail_on_recompile_limit_hit = True
    inductor.fx_graph_cache = True
    if one_thread:
        inductor.compile_threads = 1


def compiled(function: Callable[..., Any], mode: str | None) -> Callable[..., Any]:
    """Return a function or module through torch.compile; a graph break is an error."""
    found: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=False, mode=mode)
    return found


def without_refused(
    calls: Mapping[str, Prepare], title: str, say: Callable[[str], None]
) -> dict[str, Prepare]:
    """Return the calls without those that torch.compile cannot compile; report these.

    Its C++ for bfloat16 declares a name twice where two biases get gradients (torch 2.11, CPU).
    """
    from torch._inductor.exc import InductorError

    kept = dict(calls)
    for label in MODES:
        if label in kept:
            try:
                kept[label]()()
            except InductorError as error:
                say(f"{title}: {label} fails, its time is left out: {first_line(error)}")
                del kept[label]
    return kept


def first_line(error: Exception) -> str:
    """Return the first line of an error that says more than its type."""
    lines = [line.strip() for line in str(error).splitlines() if "error:" in line]
    return lines[0] if lines else str(error).partition("\n")[0]


def forget() -> None:
    """Drop what was compiled in this process, and free its memory; the cache on disk stays."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
