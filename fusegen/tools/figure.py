"""Figures as SVG, in one look: curves of a function and its derivatives, and whatever else a caller draws.

The same figure has the same bytes with the same matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fusegen.base.errors import UserError

__all__ = ["INPUT", "SLOPE", "VALUE", "draw_curves", "figure", "points_of_curves"]

VALUE, SLOPE, INPUT = "#0b6e4f", "#d9822b", "#8a8f98"
#: The look of the curves of a figure: the function, and its derivatives.
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": VALUE, "linewidth": 1.6},
    {"color": SLOPE, "linewidth": 1.2, "linestyle": (0, (4, 2))},
    {"color": "#4269d0", "linewidth": 1.2, "linestyle": (0, (4, 1, 1, 1))},
    {"color": "#a463b0", "linewidth": 1.2, "linestyle": (0, (1, 1))},
)
_REACH, _POINTS, _HEIGHT = 4.0, 161, 4.0
#: Metadata that matplotlib would write, such as the date and its version. They are left out.
_METADATA = ("Creator", "Date", "Format", "Type")
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "fusegen",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def points_of_curves() -> Tensor:
    """Return where curves are computed."""
    return torch.linspace(-_REACH, _REACH, _POINTS, dtype=torch.float64)


def draw_curves(axes: Any, points: Tensor, curves: Mapping[str, Tensor], label: str) -> None:
    """Draw a function and up to three of its derivatives.

    Args:
        axes: where.
        points: those of `points_of_curves`.
        curves: the values there, by name; the function is the first.
        label: the name of its argument.
    """
    value, *slopes = curves.values()
    shown = [value, *(s.masked_fill(value.isnan(), float("nan")) for s in slopes)]
    for (name, values), look in zip(curves.items(), _LOOKS, strict=False):
        axes.plot(points, _broken(values), label=name, **look)
    drawn = torch.cat(shown).clamp(-_HEIGHT, _HEIGHT)
    drawn = drawn[~drawn.isnan()]
    low, high = min(float(drawn.min()), -0.5), max(float(drawn.max()), 1.0)
    axes.set_ylim(low - 0.15, high + 0.15)
    axes.set_xlim(-_REACH, _REACH)
    axes.set_xticks([-4, -2, 0, 2, 4])
    axes.set_xlabel(label)


def _broken(values: Tensor) -> Any:
    """Return values to plot, with a gap where the function jumps or leaves the picture."""
    shown = values.clone()
    shown[values.abs() > 3 * _HEIGHT] = float("nan")
    step = values.diff().abs()
    calm = torch.minimum(step[:-2], step[2:]) < 0.2
    jumps = (step[1:-1] > 0.3) & calm & (torch.maximum(step[:-2], step[2:]) < 0.3)
    shown[2:-1][jumps] = float("nan")
    return [round(v, 4) for v in shown.tolist()]


def figure(
    drawn: Callable[[Any], None], size: tuple[float, float] = (4.2, 2.4), *, linear: bool = True
) -> str:
    """Return a figure as SVG, with a legend above it.

    Args:
        drawn: draws into axes.
        size: its width and height in inches.
        linear: whether the vertical axis is linear, with about five numbers.

    Raises:
        UserError: if matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        raise UserError("pictures need matplotlib; run `pip install fusegen[bench]`") from None
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not the reader's own style
        matplotlib.rcParams.update(_STYLE)
        made = Figure(figsize=size, facecolor="white", layout="constrained")
        axes = made.subplots()
        drawn(axes)
        if linear:
            axes.yaxis.set_major_locator(MaxNLocator(5))
        made.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=4)
        out = io.StringIO()
        made.savefig(out, format="svg", metadata=dict.fromkeys(_METADATA))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
