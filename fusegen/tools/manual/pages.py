"""The manual as files: an index, a page for each family of ops, a picture for each op that has one."""

from __future__ import annotations

from pathlib import Path

import jinja2

from fusegen.base import paths
from fusegen.base.files import write_if_different
from fusegen.tools.manual.entries import Family, families
from fusegen.tools.manual.pictures import draw

__all__ = ["render", "write"]


def render(*, pictures: bool = True) -> dict[str, str]:
    """Return the text of each file of the manual, by its path in the manual's folder.

    Args:
        pictures: whether to draw, which needs matplotlib.

    Raises:
        UserError: if matplotlib is missing.
    """
    found = families()
    drawn = {e.op.name: draw(e.op) for f in found for e in f.entries} if pictures else {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.templates() / "manual"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )

    def page(template: str, **given: object) -> str:
        return environment.get_template(template).render(**given)

    files = {"README.md": page("index.md.j2", families=found, count=_count(found))}
    files |= {f"{f.name}.md": page("family.md.j2", family=f) for f in found}
    return files | {f"pictures/{name}.svg": text for name, text in drawn.items() if text}


def write(folder: Path) -> tuple[int, int]:
    """Write the manual and remove stale pages; return how many files it has, and how many changed.

    Args:
        folder: its folder, such as docs/ops, for nothing else.

    Raises:
        UserError: if matplotlib is missing.
    """
    files = render()
    changed = sum(write_if_different(folder / name, text) for name, text in files.items())
    for path in (*folder.glob("*.md"), *folder.glob("pictures/*.svg")):
        if str(path.relative_to(folder)) not in files:
            path.unlink()
            changed += 1
    return len(files), changed


def _count(found: list[Family]) -> int:
    return sum(len(family.entries) for family in found)
