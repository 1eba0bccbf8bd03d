"""Rewrites templates/include/fusegen/fitted.h: `python -m fusegen.tools.fitted_header`."""

from __future__ import annotations

from fusegen.lower.polynomials import elementary as fitted
from fusegen.render import formatted


def text() -> str:
    """Return the header's text: every polynomial of `lower/polynomials/elementary.py`, formatted."""
    return formatted(fitted.header())


if __name__ == "__main__":
    fitted.path().write_text(text())
