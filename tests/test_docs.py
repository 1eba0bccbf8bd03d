"""The documentation: its links lead somewhere, and its code is code.

`test_readme.py` and `ops/test_adding_an_op.py` run what the README and that page show. Here nothing runs. A
block after a line `<!-- not checked -->` is left out.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import ROOT
from prove import page
from prove.every_input import accounted

from fusegen.atoms import ATOMS
from fusegen.ops import registry

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
#: Pages whose code other tests run as it stands.
RUN = {ROOT / "README.md", ROOT / "docs" / "adding_an_op.md"}

FENCE = re.compile(r"^( *)(```+)(\w*)[^\n]*\n(.*?)^\1\2`*[ \t]*$", re.DOTALL | re.MULTILINE)
#: The target of `[text](target)` and `![text](target "title")`; a picture may be the text of a link.
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s+<?(\S+?)>?\s*$", re.MULTILINE)
HTML = re.compile(r"<(?:a|img)\b[^>]*\b(?:href|src)=\"([^\"]+)\"")


class Block(NamedTuple):
    """A fenced block, with the line of its first line of code."""

    language: str
    line: int
    code: str


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def prose(path: Path) -> str:
    """Return a page without its code, in which nothing is a link or a heading."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def targets(text: str) -> list[str]:
    """Return what a page without its blocks links to, inline code left out."""
    text = re.sub(r"(`+).+?\1", "", text)
    return [*LINK.findall(text), *REFERENCE.findall(text), *HTML.findall(text)]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set(re.findall(r"<a\b[^>]*\b(?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", text, re.MULTILINE):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken(path: Path) -> list[str]:
    """Return the relative links of a page that lead to no file, or to no heading of one."""
    missing = []
    for target in targets(prose(path)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        known = there.exists() and there.is_relative_to(ROOT)
        if not known or (anchor and there.suffix == ".md" and anchor not in anchors(prose(there))):
            missing.append(target)
    return missing


def blocks(path: Path, *languages: str) -> list[Block]:
    """Return a page's blocks of some languages, but for those that are marked."""
    text = path.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        above = text[: match.start()].rstrip().rsplit("\n", 1)[-1].strip()
        if match[3] in languages and above != "<!-- not checked -->":
            line = text.count("\n", 0, match.start(4)) + 1
            found.append(Block(match[3], line, textwrap.dedent(match[4])))
    return found


def test_there_are_pages() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/specs.md", "docs/ops/README.md"} <= {
        name(p) for p in PAGES
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert broken(page) == []


def of_pages(pages: list[Path], *languages: str) -> list[object]:
    """Return each block of some languages as a parameter of a test, with its page and line as its name."""
    return [
        pytest.param(page, block, id=f"{name(page)}:{block.line}")
        for page in pages
        for block in blocks(page, *languages)
    ]


@pytest.mark.parametrize(("page", "block"), of_pages(sorted({*PAGES} - RUN), "python", "py"))
def test_python_compiles(page: Path, block: Block) -> None:
    filled = "\n" * (block.line - 1) + block.code  # so that an error names the page's own line
    compile(filled, name(page), "exec")


@pytest.mark.parametrize(("page", "block"), of_pages(PAGES, "yaml", "yml"))
def test_a_spec_is_yaml_with_a_chain(page: Path, block: Block) -> None:
    if not re.search(r"^chain:", block.code, re.MULTILINE):
        pytest.skip("not a spec")
    steps = yaml.safe_load(block.code)["chain"]
    assert steps, name(page)
    assert all(isinstance(step, str | dict) for step in steps), steps


def test_the_tables_of_evidence_are_those_of_the_records() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.rendered(text) == text, "PYTHONPATH=tests python -m prove.page"


def test_whatever_a_record_has_wrong_is_explained() -> None:
    for row in page.record("inputs_cpu")["rows"]:
        assert accounted(row), row
    assert not page.record("specs")["wrong"]
    assert not any(row["wrong"] for row in page.record("samples")["rows"])
    for pattern in ("faults*.json", "sanitizers*.json"):
        for path in page.FOLDER.glob(pattern):
            assert not page.record(path.stem)["wrong"]


def test_files_that_decide_speed_are_there() -> None:
    """What docs/what_decides_speed.md names as the place of something is a file of the repository."""
    folders = ("templates", "fusegen/lower", "fusegen/runtime")
    there = [str(p) for folder in folders for p in (ROOT / folder).rglob("*")]
    text = (ROOT / "docs" / "what_decides_speed.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./]+\.(?:py|h|cuh|j2))`", text)
    assert len(named) > 10
    assert [n for n in named if not any(p.endswith(f"/{n}") for p in there)] == []


def test_a_broken_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# A heading: `x` & [more](no.md)\n# Twice\n# Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#twice-1) [c](#here) [d](https://x.y/z) ![e](gone.svg)\n"
        "[f](gone.md) [g](other.md#gone) [h](#gone) [i](other.md#a-heading-x--more) `[j](k.md)`\n"
        '[![k](lost.svg)](other.md) <img src="lost.png"> [l](../out.md)\n\n[m]: lost.md\n'
        "```\n# No heading\n[n](o.md)\n```\n[p](#no-heading)\n"
    )
    files = ["gone.svg", "gone.md", "lost.svg", "lost.png", "lost.md", "../out.md"]
    assert sorted(broken(page)) == sorted([*files, "other.md#gone", "#gone", "#no-heading"])


def test_blocks_are_found_and_marked_ones_left_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "text\n```python\na = 1\n```\n- item\n\n  ```python\n  b = 2\n  ```\n\n"
        "<!-- not checked -->\n```python\nc = \n```\n```yaml\nchain: [x]\n```\n"
    )
    assert blocks(page, "python") == [Block("python", 3, "a = 1\n"), Block("python", 8, "b = 2\n")]
    assert [b.line for b in blocks(page, "yaml")] == [16]


#: What tests of every op or atom are called by.
NAMES = [*registry(), *(function.__name__ for function in ATOMS)]
#: A test file that a page names, from the root or from tests/, with the selection of its tests after it.
TESTS = re.compile(r"((?:[\w]+/)*test_\w+\.py)(?: -k (\"[^\"]+\"|\w+))?")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    """The files, and in each the words of `-k`: pytest runs nothing and says nothing where one is wrong."""
    for path, selection in TESTS.findall(page.read_text(encoding="utf-8")):
        found = [p for p in (ROOT / path, ROOT / "tests" / path) if p.is_file()]
        found = found or sorted((ROOT / "tests").rglob(path))
        assert found, f"{path} is not there"
        words = re.split(r" (?:or|and|not) ", selection.strip('"')) if selection else []
        text = " ".join([*NAMES, *(p.read_text(encoding="utf-8") for p in found)])
        missing = [word for word in words if word not in text]
        assert not missing, f"{path} has no test of {missing}"


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs refuses a page that no menu leads to."""
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in pages if page not in menu]
