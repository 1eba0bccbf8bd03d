"""Rewrites the headers fitted.h and remainders.h: `python -m fusegen.tools.fitted_header`."""

from __future__ import annotations

from pathlib import Path

from fusegen.lower.polynomials import elementary as fitted
from fusegen.lower.polynomials import quadrants
from fusegen.render import formatted


def texts() -> dict[Path, str]:
    """Return each header's text, formatted.

    They are the polynomials of `lower/polynomials/elementary.py`, and the constants of `quadrants.py`.
    """
    return {header.path(): formatted(header.header()) for header in (fitted, quadrants)}


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text)
