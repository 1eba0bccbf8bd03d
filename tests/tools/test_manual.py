"""The manual of the ops, docs/ops: it is what the declarations say."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
from conftest import ROOT

from fusegen.ops import registry
from fusegen.tools.manual.pages import render

FOLDER = ROOT / "docs" / "ops"
STALE = "docs/ops is stale: run `fusegen ops --docs docs/ops`"


def test_the_pages_are_what_the_declarations_say() -> None:
    pages = render(pictures=False)
    assert {path.name for path in FOLDER.glob("*.md")} == set(pages), STALE
    assert [n for n, text in pages.items() if (FOLDER / n).read_text() != text] == [], STALE


@pytest.mark.slow
def test_the_pictures_are_what_the_declarations_say() -> None:
    pinned = re.search(r"^matplotlib==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pytest.importorskip("matplotlib")
    if pinned is None or version("matplotlib") != pinned[1]:
        pytest.skip(f"another matplotlib than {pinned and pinned[1]} draws other bytes")
    drawn = {n: text for n, text in render().items() if n.endswith(".svg")}
    kept = {f"pictures/{path.name}" for path in FOLDER.glob("pictures/*")}
    assert kept == set(drawn), STALE
    assert [n for n, text in drawn.items() if (FOLDER / n).read_text() != text] == [], STALE


def test_every_op_has_its_place_and_its_picture_or_a_reason() -> None:
    index = (FOLDER / "README.md").read_text()
    for name, op in registry().items():
        page = (FOLDER / f"{op.formula.__module__.rsplit('.')[-1]}.md").read_text()
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        assert f"#{name})" in index
        assert "grad_x" in section
        assert f"](pictures/{name}.svg)" in section or "No picture: " in section


def test_pictures_are_small() -> None:
    assert max(path.stat().st_size for path in FOLDER.glob("pictures/*")) < 12_000
