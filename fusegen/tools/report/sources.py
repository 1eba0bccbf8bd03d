"""Sources with highlighting."""

from __future__ import annotations

from functools import cache
from typing import Any

from markupsafe import Markup

__all__ = ["highlighted", "style"]

#: The lexer of each kind of file.
_LEXERS = {"h": "cpp", "cpp": "cpp", "cu": "cuda", "py": "python", "yaml": "yaml"}
_LIGHT, _DARK = "friendly", "github-dark"


@cache
def _formatter(look: str) -> Any:
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(style=look, nowrap=True)


def highlighted(text: str, name: str) -> Markup:
    """Return the text of a file with its words in classes, for the page's style.

    Args:
        text: the text.
        name: the file's name, which says what language it is in.
    """
    from pygments import highlight
    from pygments.lexers import get_lexer_by_name

    lexer = get_lexer_by_name(_LEXERS[name.rpartition(".")[2]])
    return Markup(highlight(text, lexer, _formatter(_LIGHT)))


def style() -> Markup:
    """Return the style of these classes, on a light and on a dark page."""
    light, dark = (
        "\n".join(
            line
            for line in _formatter(look).get_style_defs(".code").splitlines()
            if line.startswith(".code .")
        )
        for look in (_LIGHT, _DARK)
    )
    return Markup(f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}")
