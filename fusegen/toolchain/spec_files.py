"""Finds the spec files for files, folders and names on the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from fusegen.base.errors import UserError

_SUFFIXES = (".yaml", ".yml")
#: What every spec has and other YAML has not.
_CHAIN = re.compile(r"^[\"']?chain[\"']?\s*:", re.MULTILINE)


def find_spec(name: str | Path) -> Path:
    """Return the spec file for a path or a name; a name means NAME.yaml here or in specs/.

    The folder of a generated package stands for its name, as a shell completes it.

    Raises:
        UserError: if there is none, or one in both places.
    """
    if "\n" in str(name):
        raise UserError('a spec as text needs a name: fusegen.build({"my_chain": text})')
    path = Path(name)
    if _is_package(path):
        path = Path(path.resolve().name)
    if path.is_file():
        return path
    places = [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
    if path == Path(path.name):  # a name alone
        places += [Path("specs", path.name + suffix) for suffix in _SUFFIXES]
    found = [place for place in places if place.is_file()]
    if len(found) > 1:
        raise UserError(f"{name} may mean {' or '.join(map(str, found))}; name the file")
    if not found:
        raise UserError(f"{name}: no such spec{_similar(path)}")
    return found[0]


def expand(specs: Sequence[Path]) -> list[Path]:
    """Return the spec files for files, names and folders; without any, those of specs/.

    Raises:
        UserError: if one does not exist, a folder has none, or two have the same name.
    """
    if not specs and not Path("specs").is_dir():
        raise UserError(
            f"there is no folder specs/ in {Path.cwd()}; name the spec files, or folders of them"
        )
    found: list[Path] = []
    for path in specs or [Path("specs")]:
        if path.is_dir() and not _is_package(path):
            inside = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES)
            if not inside:
                raise UserError(f"{path}: there is no spec (*.yaml) in this folder")
            found += inside
        else:
            found.append(find_spec(path))
    by_name: dict[str, Path] = {}
    for path in found:
        other = by_name.setdefault(path.stem, path)
        if other.resolve() != path.resolve():
            raise UserError(
                f"{path} and {other} would both be the package {path.stem!r}; rename one"
            )
    return list(by_name.values())


def _is_package(path: Path) -> bool:
    """Whether a path is the folder of a generated package."""
    return (path / "element.h").is_file()


def specs_in(folder: Path) -> list[Path]:
    """Return the files of a folder that are specs by their looks: YAML with a chain."""
    files = [p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file()]
    return [p for p in files if _CHAIN.search(p.read_text(encoding="utf-8", errors="replace"))]


def _similar(path: Path) -> str:
    folders = [path.parent if path.parent.is_dir() else Path()]
    folders += [Path("specs")] if path == Path(path.name) and Path("specs").is_dir() else []
    known = {p.stem: p for f in folders for p in sorted(specs_in(f))}
    close = difflib.get_close_matches(path.stem, known, n=1)
    if close:
        return f"; did you mean {known[close[0]]}?"
    looked = " and ".join(f"{folder}/" for folder in folders)
    return f"; in {looked} there are: {', '.join(known)}" if known else f"; {looked} holds none"
