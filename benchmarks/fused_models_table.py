"""Writes the table of whole models into README.md and docs/models.md, from the record of fused_models.sh.

python benchmarks/fused_models_table.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SUBJECTS = ("eager", "compile", "fusegen")
#: What the table shows; a training step is in the record.
PASSES = ("forward", "forward + backward")


def row(cell: Mapping[str, Any]) -> str:
    """Return a cell as a row: the fastest is bold."""
    times = [cell.get(f"{subject}_ms") for subject in SUBJECTS]
    least = min(time for time in times if time is not None)
    shown = ["–" if t is None else f"**{t:.2f}**" if t == least else f"{t:.2f}" for t in times]
    peaks = [cell.get(f"{subject}_peak_mb") for subject in SUBJECTS]
    memory = "–" if None in peaks else ", ".join(f"{peak / 1000:.2f}" for peak in peaks)
    name = f"{cell['model']}, {cell['title']}, {cell['inputs']}"
    walls = [cell.get(f"{subject}_wall_ms") for subject in SUBJECTS]
    wall = "–" if None in walls else ", ".join(f"{ms:.2f}" for ms in walls)
    columns = (name, cell["pass"], *shown, wall, memory, cell["commit"])
    return f"| {' | '.join(columns)} |"


def table(record: Mapping[str, Any]) -> str:
    """Return the table of a record, in milliseconds and gigabytes; of cells alike the last."""
    cells = {(cell["model"], cell["pass"]): cell for cell in record["cells"]}
    about = record["machine"]
    said = f"{about['chip']}, driver {about['driver']}, torch {about['torch']}."
    lines = [
        "| ms | pass | eager | torch.compile | fusegen | with the host | GB of the three | commit |",
        "| --- | --- | ---: | ---: | ---: | --- | --- | --- |",
        *(row(cell) for (_, name), cell in cells.items() if name in PASSES),
    ]
    return "\n".join([said, "", *lines])


def main() -> None:
    """Replace what stands between the marks in both pages."""
    text = table(json.loads((ROOT / "benchmarks" / "fused_models.json").read_text()))
    for page in (ROOT / "README.md", ROOT / "docs" / "models.md"):
        old = page.read_text()
        new = re.sub(
            r"(<!-- models -->\n).*?(<!-- /models -->)",
            lambda m: m[1] + text + "\n" + m[2],
            old,
            flags=re.DOTALL,
        )
        page.write_text(new)


if __name__ == "__main__":
    main()
