"""Writes templates/include/fusegen/fitted.h anew: `python -m fusegen.fitted_header`."""

from __future__ import annotations

from fusegen.lower import fitted
from fusegen.render import formatted


def text() -> str:
    """Return the header's text: every polynomial of `lower/fitted.py`, formatted."""
    return formatted(fitted.header())


if __name__ == "__main__":
    fitted.path().write_text(text())
