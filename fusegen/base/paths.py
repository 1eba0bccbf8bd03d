"""Where fusegen's own data files lie, in a checkout and in an installed wheel."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def package() -> Path:
    """Return the folder of the package fusegen."""
    return Path(__file__).resolve().parents[1]


def templates() -> Path:
    """Return the folder of templates: beside the package in a checkout, inside it in a wheel."""
    inside = package() / "templates"
    return inside if inside.is_dir() else package().parent / "templates"


def include() -> Path:
    """Return the folder to give the compilers as `-I`: it holds `fusegen/*.h`."""
    return templates() / "include"


def binding() -> Path:
    """Return the source of what the bindings of all packages share."""
    return include() / "fusegen" / "binding.cpp"


def shared_kernels() -> Path:
    """Return the source of the GPU's kernels that all packages share."""
    return include() / "fusegen" / "shared_kernels.cu"


def foreign(files: Iterable[str]) -> set[Path]:
    """Return those of some source files, resolved, that are not fusegen's own."""
    return {p for p in (Path(file).resolve() for file in files) if package() not in p.parents}
