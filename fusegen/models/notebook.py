"""A report of a model as HTML for a notebook, in its colours, light or dark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from fusegen.models.graph_picture import picture

if TYPE_CHECKING:
    from fusegen.models.fusion_report import FusedRegion, Report

__all__ = ["report_as_html"]

#: More regions that differ are not listed.
_ROWS = 40
#: Colours that show on white and on black; what has none takes the notebook's.
_STYLE = Markup("""<style>
.fusegen table { border-collapse: collapse; margin: 0.5em 0; }
.fusegen th, .fusegen td { text-align: left; padding: 0.2em 0.8em 0.2em 0; }
.fusegen summary { cursor: pointer; }
.fusegen .graph { overflow: auto; max-height: 32em; margin: 0.5em 0; }
.fusegen svg text { fill: currentColor; font: 12px monospace; text-anchor: middle; }
.fusegen svg .shape { opacity: 0.65; }
.fusegen svg rect { fill: #8881; stroke: #8886; }
.fusegen svg .region rect { fill: #2f9e6e40; stroke: #2f9e6e; }
.fusegen svg .input rect, .fusegen svg .output rect { fill: none; stroke-dasharray: 2 3; }
.fusegen svg .arrows path { fill: none; stroke: #888; stroke-width: 1.2; }
</style>""")


def report_as_html(report: Report) -> str:
    """Return a report: its summary, its graphs, its regions, and what is left to torch."""
    packages = {region.package for region in report.fused}
    parts = [Markup("<p><b>{}</b></p>").format(str(report).splitlines()[0])]
    for units in dict.fromkeys(report.units):
        drawn = Markup('<div class="graph">{}</div>').format(picture(units, packages, ()))
        parts.append(_folded("graph", drawn))
    fused = [
        (
            " ".join(r.ops),
            count,
            r.shape,
            _mb(r.cost.bytes_before),
            _mb(r.cost.bytes_after),
            r.package,
        )
        for r, count in _counted(report.fused)
    ]
    parts.append(_table(("fused", "times", "shape", "MB before", "after", "package"), fused))
    unfused = [
        (" ".join(r.ops), count, r.shape, r.reason)
        for r, count in _counted(r for r in report.regions if r.reason)
    ]
    parts.append(_table(("not fused", "times", "shape", "reason"), unfused))
    left = [(name, count, reason) for (name, reason), count in report.left.most_common()]
    parts.append(_folded("as before", _table(("op", "times", "reason"), left)))
    return str(Markup('<div class="fusegen">{}{}</div>').format(_STYLE, Markup("").join(parts)))


def _counted(regions: Iterable[FusedRegion]) -> list[tuple[FusedRegion, int]]:
    """Return regions that differ, and how many there are of each; those that save most come first."""
    found = Counter(regions).items()
    return sorted(found, key=lambda i: i[1] * (i[0].cost.bytes_after - i[0].cost.bytes_before))


def _mb(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Return a table; nothing if it has no rows."""
    if not rows:
        return Markup()
    head = Markup("").join(Markup("<th>{}</th>").format(text) for text in heads)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(c) for c in row))
        for row in rows[:_ROWS]
    )
    more = f"and {len(rows) - _ROWS} more" if len(rows) > _ROWS else ""
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}").format(
        head, body, more
    )


def _folded(title: str, inside: Markup) -> Markup:
    """Return what a click shows; nothing if there is nothing."""
    if not inside:
        return Markup()
    return Markup("<details><summary>{}</summary>{}</details>").format(title, inside)
