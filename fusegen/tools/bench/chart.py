"""A record as a picture: each tail's times as multiples of its byte limit, forward and backward.

The same record gives the same bytes with the same matplotlib, so a picture changes only with its record.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusegen.base.errors import UserError
from fusegen.tools.bench.record import Cell, Record
from fusegen.tools.bench.summary import multiple, short

#: The variants from the least to the most important, each with its label and look.
_MARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "eager": ("eager", {"marker": "^", "facecolors": "none", "edgecolors": "#8a8f98", "s": 24}),
    "best compile": (
        "torch.compile, its better mode",
        {"marker": "s", "facecolors": "#f2a33a", "edgecolors": "#b36b00", "s": 20},
    ),
    "fusegen": (
        "fusegen",
        {"marker": "o", "facecolors": "#0b6e4f", "edgecolors": "#06402d", "s": 26},
    ),
}
_TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500)
_PANELS = ("forward", "backward")

Row = tuple[str, str, tuple[int, ...]]


def draw(record: Record, path: Path) -> None:
    """Write the picture of a record's tails, as SVG or PNG by the path's ending.

    Raises:
        UserError: if matplotlib is missing, the ending is different, or there is no tail.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("--chart needs matplotlib; `pip install fusegen[bench]`") from None
    ending = path.suffix.removeprefix(".")
    if ending not in ("svg", "png"):
        raise UserError(f"--chart {path}: expected a name that ends in .svg or .png")
    cells = [cell for cell in record.cells if cell.kind == "tail"]
    if not cells:
        raise UserError(f"--chart {path}: the record has no tails to draw")
    style: dict[Any, Any] = {
        "svg.hashsalt": "fusegen",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the reader's own style
        matplotlib.rcParams.update(style)
        places, headings, depth = _layout(cells)
        figure = Figure(figsize=(10, 1.5 + 0.145 * depth), facecolor="white")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for panel, direction in zip(panels, _PANELS, strict=True):
            inside = [cell for cell in cells if cell.direction == direction]
            _panel(panel, direction, inside, places)
        _label_rows(panels, places, headings, depth)
        _label_times(panels, cells)
        _head(figure, panels[0], record)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None, "Creator": "fusegen bench"} if ending == "svg" else None
        figure.savefig(path, format=ending, dpi=150, metadata=metadata)


def _layout(cells: Sequence[Cell]) -> tuple[dict[Row, float], dict[str, float], float]:
    """Return the height of each row and of each tail's heading, and that of the whole, from the top."""
    places: dict[Row, float] = {}
    headings: dict[str, float] = {}
    depth = 0.0
    for spec in dict.fromkeys(cell.spec for cell in cells):
        headings[spec] = depth
        depth += 1.2
        for dtype in dict.fromkeys(c.dtype for c in cells if c.spec == spec):
            inside = [c for c in cells if (c.spec, c.dtype) == (spec, dtype)]
            for shape in dict.fromkeys(_row(c)[-1] for c in inside):
                places[spec, dtype, shape] = depth
                depth += 1
            depth += 0.4
        depth += 0.5
    return places, headings, depth


def _panel(panel: Any, direction: str, cells: Sequence[Cell], places: dict[Row, float]) -> None:
    panel.axvline(1, color="#c0392b", linewidth=1.2, zorder=1)
    for cell in cells:
        found = [multiple(cell, name) for name in ("fusegen", "best compile")]
        ends = [value for value in found if value is not None]
        height = places[_row(cell)]
        panel.plot(ends, [height] * len(ends), color="#d8dbe0", linewidth=2, zorder=0)
    for name, (label, look) in _MARKS.items():
        points = [(multiple(c, name), places[_row(c)]) for c in cells]
        known = [(x, y) for x, y in points if x is not None]
        if known:
            across, down = zip(*known, strict=True)
            panel.scatter(across, down, label=label, linewidths=0.7, zorder=3, **look)
    panel.set_title(direction, fontsize=10, fontweight="bold")


def _label_rows(
    panels: Any, places: dict[Row, float], headings: dict[str, float], depth: float
) -> None:
    panels[0].set_ylim(depth, -1)
    panels[0].set_yticks(list(places.values()))
    labels = [f"{short(dtype)}  {' x '.join(map(str, shape))}" for _, dtype, shape in places]
    panels[0].set_yticklabels(labels, fontsize=6.5)
    for spec, height in headings.items():
        panels[0].annotate(
            spec,
            (0, height),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            fontsize=7.5,
            fontweight="bold",
            va="center",
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
    for panel in panels:
        panel.tick_params(axis="y", length=0)
        for height in headings.values():
            panel.axhline(height - 0.75, color="#b8bcc4", linewidth=0.6)
        for side in ("left", "right", "top"):
            panel.spines[side].set_visible(False)


def _label_times(panels: Any, cells: Sequence[Cell]) -> None:
    values = [v for c in cells for name in _MARKS if (v := multiple(c, name)) is not None]
    low, high = min(*values, 1.0) / 1.12, max(*values, 1.0) * 1.12
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    for panel in panels:
        panel.set_xscale("log")
        panel.set_xlim(low, high)
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
        panel.minorticks_off()
        panel.grid(axis="x", color="#eceef1", linewidth=0.8, zorder=-1)
        panel.set_axisbelow(True)
        panel.set_xlabel(
            "times the byte limit (1 = memory speed; further left is faster)", fontsize=8
        )


def _head(figure: Any, panel: Any, record: Record) -> None:
    chip, torch = (record.machine.get(name) or "?" for name in ("chip", "torch"))
    height = figure.get_size_inches()[1]
    title = f"What follows a matmul, on {chip} (torch {torch})"
    figure.suptitle(title, fontsize=11, x=0.02, ha="left", y=1 - 0.12 / height, va="top")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels[::-1],
        loc="upper left",
        bbox_to_anchor=(0.012, 1 - 0.32 / height),
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    figure.subplots_adjust(
        left=0.13, right=0.985, wspace=0.04, top=1 - 0.9 / height, bottom=0.5 / height
    )


def _row(cell: Cell) -> Row:
    return cell.spec, cell.dtype, (cell.rows, cell.cols, *cell.trailing)
