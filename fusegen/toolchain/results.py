"""What became of the packages of a build."""

from __future__ import annotations

import html
from dataclasses import dataclass

__all__ = ["BuildResult", "BuildResults"]


@dataclass(frozen=True)
class BuildResult:
    """What became of one package.

    Args:
        name: the package.
        backends: what it was built for.
        rendered: whether its sources were written anew.
        compiled: the files that were compiled or linked.
        seconds: how long its compilers ran, added up.
    """

    name: str
    backends: tuple[str, ...]
    rendered: bool
    compiled: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        spent = f"built, {self.seconds:.1f} s of compilers" if self.compiled else "up to date"
        return f"{self.name} ({' '.join(self.backends)}): {spent}"


class BuildResults(list[BuildResult]):
    """The results of a build, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [(r.name, " ".join(r.backends), str(r).rpartition(": ")[2]) for r in self]
        head = "".join(f"<th>{title}</th>" for title in ("package", "for", "state"))
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
