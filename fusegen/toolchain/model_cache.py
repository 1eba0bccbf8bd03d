"""The folder in which packages of models are kept: what is in it, how it is emptied, how large it may grow.

Each package has a mark, a file whose time is that of its last use.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from fusegen.base.errors import UserError
from fusegen.toolchain.lock import build_lock
from fusegen.toolchain.ninja_file import packages_under

__all__ = [
    "LIMIT",
    "KeptPackage",
    "bytes_of",
    "clear",
    "default_folder",
    "kept_packages",
    "limit_here",
    "mark_used",
    "trim",
]

#: The environment variable with the most bytes that the folder may have after a build.
LIMIT = "FUSEGEN_MODELS_LIMIT"
#: A package that was used within so many seconds stays: another process may be about to load it.
RECENT = 600.0
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]*)", re.IGNORECASE)


@dataclass(frozen=True)
class KeptPackage:
    """A package of a model's region.

    Args:
        name: its name.
        size: the bytes of its files, of those that its library was linked from, and of its spec.
        built: when its spec was derived last, in seconds since 1970.
        used: when a process loaded it last.
    """

    name: str
    size: int
    built: float
    used: float


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
        mark = _mark(folder, name)
        used = mark.stat().st_mtime if mark.exists() else built
        found.append(KeptPackage(name, sum(stat.st_size for stat in stats), built, used))
    return sorted(found, key=lambda package: package.built, reverse=True)


def clear(folder: Path, say: Callable[[str], None]) -> list[KeptPackage]:
    """Remove all packages from a folder of models, and return them; a build that runs there ends first.

    Processes that have loaded one keep it. Other files in the folder stay.
    """
    if not (folder / "generated").is_dir():
        return []
    with build_lock(folder / "generated" / ".build", say):
        return _remove(folder, kept_packages(folder))


def trim(
    folder: Path, limit: int, say: Callable[[str], None], keep: Collection[str] = ()
) -> list[KeptPackage]:
    """Remove the packages that were not used for longest, until the rest has at most `limit` bytes.

    Those in `keep` stay, and those of the last ten minutes; a build that runs there ends first.

    Returns:
        The packages that were removed.
    """
    if sum(package.size for package in kept_packages(folder)) <= limit:
        return []
    with build_lock(folder / "generated" / ".build", say):
        packages = kept_packages(folder)
        excess = sum(package.size for package in packages) - limit
        removed = []
        for package in sorted(packages, key=lambda package: package.used):
            if excess <= 0 or package.used > time.time() - RECENT:
                break
            if package.name not in keep:
                removed.append(package)
                excess -= package.size
        return _remove(folder, removed)


def mark_used(folder: Path, names: Iterable[str]) -> None:
    """Note that packages are used now, if they were built here."""
    for name in names:
        mark = _mark(folder, name)
        if os.access(mark.parent, os.W_OK):
            mark.touch()


def limit_here() -> int | None:
    """Return the limit that the environment sets, in bytes.

    Raises:
        UserError: it is no size.
    """
    given = os.environ.get(LIMIT)
    return bytes_of(given, LIMIT) if given else None


def bytes_of(text: str, what: str) -> int:
    """Return a size such as `2GB` or `500 MB` in bytes; `what` is what it is, for a message.

    Raises:
        UserError: the text is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or found[2].upper() not in _UNITS:
        raise UserError(f"{what}: {text!r} is no size; write 500MB or 2GB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _remove(folder: Path, packages: Iterable[KeptPackage]) -> list[KeptPackage]:
    """Remove packages, and return them."""
    removed = [*packages]
    for package in removed:
        for place in _places(folder, package.name):
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
    return removed


def _mark(folder: Path, name: str) -> Path:
    """Return the file whose time is that of a package's last use; it lies beside its objects."""
    return folder / "generated" / ".build" / name / "used"


def _places(folder: Path, name: str) -> tuple[Path, ...]:
    """Return where the files of a package are: what is compiled comes first, so that half is not whole."""
    out = folder / "generated"
    return (out / ".build" / name, out / name, folder / "specs" / f"{name}.yaml")
