"""The page of `fusegen report` in Chromium: light and dark, on a phone and on a desk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shared.chromium import Browser, chromium
from shared.report_pages import hostile_page

pytestmark = pytest.mark.skipif(chromium() is None, reason="there is no Chromium here")

PHONE, DESK = 390, 1280
_OPEN = "document.querySelectorAll('details').forEach(each => { each.open = true; })"
_SIZES = "[innerWidth, document.documentElement.scrollWidth, document.querySelectorAll('*').length]"
_COLOURS = """['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"""
#: The texts of boxes that are wider than their box, or than what scrolls around it.
_TEXTS = """[...document.querySelectorAll('.graph g')].filter(box => {
  const rect = box.querySelector('rect'), texts = [...box.querySelectorAll('text')];
  return rect && texts.some(text => {
    const outer = rect.getBoundingClientRect(), inner = text.getBoundingClientRect();
    return inner.left < outer.left || inner.right > outer.right || inner.bottom > outer.bottom;
  });
}).map(box => box.textContent)"""
_FORMULAS = """[...document.querySelectorAll('math')].filter(
  each => !each.getBoundingClientRect().height
).length"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(hostile_page(path.parent))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_fits_and_asks_for_nothing(
    width: int, dark: bool, page: Path, browser: Browser
) -> None:
    browser.open(page, width, dark=dark)
    browser.evaluate(_OPEN)
    inner, scrolled, elements = browser.evaluate(_SIZES)
    assert (inner, scrolled) == (width, width)
    assert elements > 300
    assert browser.evaluate(_TEXTS) == []
    assert browser.evaluate(_FORMULAS) == 0
    assert browser.complaints() == []
    assert browser.requests() == [page.resolve().as_uri()]
    text, behind = (_lightness(colour) for colour in browser.evaluate(_COLOURS))
    assert (text > behind) == dark
    assert (max(text, behind) + 0.05) / (min(text, behind) + 0.05) > 7  # WCAG's AAA


def test_complaints_and_requests_are_noticed(tmp_path: Path, browser: Browser) -> None:
    """Else the test above would pass whatever happens."""
    (tmp_path / "bad.html").write_text(
        "<img src='there_is_none.png'><script>console.error('this'); nothing()</script>"
    )
    browser.open(tmp_path / "bad.html", DESK)
    assert len(browser.requests()) == 2
    complaints = " ".join(browser.complaints())
    assert "this" in complaints
    assert "nothing is not defined" in complaints


def _lightness(colour: str) -> float:
    """Return the relative luminance of a colour."""
    parts: Any = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
