"""The folder in which packages of models are kept: what is in it, and how it is emptied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fusegen.toolchain.lock import build_lock
from fusegen.toolchain.ninja_file import packages_under

__all__ = ["KeptPackage", "clear", "default_folder", "kept_packages"]


@dataclass(frozen=True)
class KeptPackage:
    """A package of a model's region.

    Args:
        name: its name.
        size: the bytes of its files, of those that its library was linked from, and of its spec.
        built: when its spec was derived last, in seconds since 1970.
    """

    name: str
    size: int
    built: float


def default_folder() -> Path:
    """Return the folder that packages of models are kept in: `FUSEGEN_MODELS`, or one below ~/.cache."""
    given = os.environ.get("FUSEGEN_MODELS")
    return Path(given) if given else Path.home() / ".cache" / "fusegen" / "models"


def kept_packages(folder: Path) -> list[KeptPackage]:
    """Return the packages in a folder of models, the newest first."""
    found = []
    for name in packages_under(folder / "generated"):
        files = [f for place in _places(folder, name) for f in (place, *place.rglob("*"))]
        stats = [file.stat() for file in files if file.is_file()]
        built = (folder / "generated" / name / "binding.cpp").stat().st_mtime
        found.append(KeptPackage(name, sum(stat.st_size for stat in stats), built))
    return sorted(found, key=lambda package: package.built, reverse=True)


def clear(folder: Path, say: Callable[[str], None]) -> list[KeptPackage]:
    """Remove all packages from a folder of models, and return them; a build that runs there ends first.

    Processes that have loaded one keep it. Other files in the folder stay.
    """
    if not (folder / "generated").is_dir():
        return []
    with build_lock(folder / "generated" / ".build", say):
        removed = kept_packages(folder)
        for package in removed:
            for place in _places(folder, package.name):
                if place.is_dir():
                    shutil.rmtree(place)
                else:
                    place.unlink(missing_ok=True)
    return removed


def _places(folder: Path, name: str) -> tuple[Path, ...]:
    """Return where the files of a package are: what is compiled comes first, so that half is not whole."""
    out = folder / "generated"
    return (out / ".build" / name, out / name, folder / "specs" / f"{name}.yaml")
