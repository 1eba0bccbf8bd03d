"""What is up to date: a package is, while its spec, fusegen itself and its files are as they were."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusegen import paths, tuned


def write_if_different(path: Path, text: str) -> bool:
    """Write a file, atomically, only where its text changes; return whether it did."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text)
    os.replace(unfinished, path)
    return True


def is_fresh(spec: Path, package: Path, stamp: Path) -> bool:
    """Return whether a package's files are what its spec would render to.

    Args:
        spec: the spec file.
        package: the package's folder.
        stamp: what `write_stamp` wrote when the package was rendered.
    """
    try:
        recorded = json.loads(stamp.read_text())
        if recorded["spec"] != _spec_sha(spec) or recorded["fusegen"] != _generator():
            return False
        named = [(package / name, sha) for name, sha in recorded["files"].items()]
        named += [(Path(name), sha) for name, sha in recorded["sources"].items()]
        return all(_sha(path) == sha for path, sha in named)
    except (
        FileNotFoundError,
        ValueError,
        KeyError,
        TypeError,
    ):  # no stamp, or a half-written one: render again
        return False


def write_stamp(
    spec: Path, files: Mapping[str, str], stamp: Path, sources: Sequence[Path] = ()
) -> None:
    """Record what a package was rendered from, and to.

    Args:
        spec: the spec file.
        files: the text of each file of the package.
        stamp: where to write.
        sources: the files of others than fusegen that declare its ops.
    """
    record = {
        "spec": _spec_sha(spec),
        "fusegen": _generator(),
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
        "sources": {str(path): _sha(path) for path in sources},
    }
    write_if_different(stamp, json.dumps(record, indent=1))


def _spec_sha(spec: Path) -> str:
    """Return a hash of a spec and of what `fusegen tune` found for it."""
    found = tuned.path_of(spec)
    return _sha(spec) + (_sha(found) if found.exists() else "")


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def _generator() -> str:
    """Return a hash of all that decides what a spec renders to: fusegen's source and templates."""
    total = hashlib.sha256()
    package = Path(__file__).resolve().parent
    sources = sorted(package.rglob("*.py"))
    templates = sorted(p for p in paths.templates().rglob("*") if p.is_file())
    for path in (*sources, *templates):
        total.update(str(path.name).encode())
        total.update(path.read_bytes())
    return total.hexdigest()
