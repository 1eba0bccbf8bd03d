"""A record as one picture: every tail cell as a multiple of the byte limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: What is drawn: the record's key, its label, marker and colour.
_SERIES = (
    ("eager_ms", "eager", "x", "#9a9a9a"),
    ("compile_ms", "torch.compile", "s", "#d98a2b"),
    ("fusegen_ms", "fusegen", "o", "#1f5fa8"),
)


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the picture as SVG; the same record gives the same bytes.

    Args:
        record: as `fusegen bench` writes it.
        path: where to.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "fusegen"
    from matplotlib import pyplot

    tails = [c for c in record["cells"] if c["kind"] == "tail"]
    rows = list(dict.fromkeys((c["spec"], c["dtype"], c["rows"], c["cols"]) for c in tails))
    places = {row: -n for n, row in enumerate(rows)}
    figure, axes = pyplot.subplots(
        1, 2, sharey=True, figsize=(11, 1.5 + 0.17 * len(rows)), layout="constrained"
    )
    for axis, direction in zip(axes, ("forward", "backward"), strict=True):
        of = [c for c in tails if c["direction"] == direction]
        for key, label, marker, colour in _SERIES:
            drawn = [c for c in of if c[key] is not None]
            axis.scatter(
                [c[key] / c["limit_ms"] for c in drawn],
                [places[c["spec"], c["dtype"], c["rows"], c["cols"]] for c in drawn],
                s=16,
                marker=marker,
                color=colour,
                label=label,
                zorder=3,
            )
        axis.axvline(1, color="black", linewidth=1)
        axis.set_xscale("log", base=2)
        ticks = [1, 1.5, 2, 3, 4, 6, 8, 12]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.grid(axis="x", color="#dddddd")
        axis.set_title(f"{direction}: multiples of the byte limit (1 = the speed of a copy)")
    labels = [f"{spec}  {dtype}  {r}x{c}" for spec, dtype, r, c in rows]
    axes[0].set_yticks([places[row] for row in rows], labels, fontsize=7)
    axes[0].set_ylim(-len(rows) + 0.3, 0.7)
    axes[0].legend(loc="lower right")
    figure.suptitle(f"{record['machine']['chip']}, torch {record['machine']['torch']}")
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
