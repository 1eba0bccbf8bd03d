"""Where fusegen's own data files lie, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def templates() -> Path:
    """Return the folder of templates: beside the package in a checkout, inside it in a wheel."""
    inside = _PACKAGE / "templates"
    return inside if inside.is_dir() else _PACKAGE.parent / "templates"


def include() -> Path:
    """Return the folder to give the compilers as `-I`: it holds `fusegen/*.h`."""
    return templates() / "include"
