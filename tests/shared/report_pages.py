"""Pages of `fusegen report` with all that a page can have, of which nothing is built."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fusegen.models.cost import Cost
from fusegen.models.fusion_report import FusedRegion, Report
from fusegen.models.graph_units import Unit
from fusegen.tools.report.model import part_of
from fusegen.tools.report.page import page
from fusegen.tools.report.times import LIMIT, TimedPass, Times

#: A chain with rows, which says markup everywhere it can.
HOSTILE = """
description: a < b & <script>alert("1")</script>
operands:
  weight: col
chain:
  - expr: "where(x < 0, softmax(x), x) * weight"
"""
TIMES = Times(
    "a chip",
    "float32, 8 × 16",
    [TimedPass("forward", {LIMIT: 0.05, "fusegen": 0.06, "eager": 0.5})],
)


def model_report() -> Report:
    """Return a report with a region that is fused, twice, and one that is not."""
    fused = FusedRegion(("add", "gelu"), "[8, 16]", Cost(3_000_000, 1_000_000, 2, 0.0), "one")
    left = FusedRegion(("mul",), "[4, <b>]", Cost(200, 100, 1, 0.0), "", "", "it is too small")
    units = (
        Unit("input", ("<x>",), "[8, 16]"),
        Unit("op", ("scaled_dot_product_attention",), "[8, 16]", "", (0,)),
        *(Unit("op", ("linear",), "[8, 16]", "", (1,)) for _ in range(9)),
        Unit("region", ("add",) * 12, "[8, 16]", "one", (0, *range(2, 11))),
        Unit("region", ("mul", "add"), "[4, <b>]", "refused", (11,)),
        Unit("output", ("result",), "", "", (12, 0)),
    )
    left_ops = Counter({("conv", "torch computes it"): 3})
    return Report([fused, fused, left], left_ops, graphs=1, units=[units])


def hostile_page(folder: Path) -> str:
    """Return a page about the chain and the model."""
    (folder / "hostile.yaml").write_text(HOSTILE)
    model = part_of("model.py:Net", model_report())
    return page(
        [(folder / "hostile.yaml", folder)], model, times={"hostile": TIMES}, model_times=TIMES
    )
