"""What is up to date: a package is, while its spec, fusegen itself and its files are as they were."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusegen.base import paths
from fusegen.base.files import write_if_different
from fusegen.base.stamp import sha
from fusegen.toolchain import tuned


def is_fresh(spec: Path, package: Path, record: Path) -> bool:
    """Return whether a package's files are what its spec would render to.

    Args:
        spec: the spec file.
        package: the package's folder.
        record: what `write_record` wrote when the package was rendered.
    """
    try:
        recorded = json.loads(record.read_text())
        if recorded["spec"] != _spec_sha(spec) or recorded["fusegen"] != _generator():
            return False
        named = [(package / name, digest) for name, digest in recorded["files"].items()]
        named += [(Path(name), digest) for name, digest in recorded["sources"].items()]
        return all(sha(path) == digest for path, digest in named)
    except (
        FileNotFoundError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # no record, or a half-written one: render again
        return False


def write_record(
    spec: Path, files: Mapping[str, str], record: Path, sources: Sequence[Path] = ()
) -> None:
    """Record what a package was rendered from, and to.

    Args:
        spec: the spec file.
        files: the text of each file of the package.
        record: where to write.
        sources: the files of others than fusegen that declare its ops and atoms.
    """
    said = {
        "spec": _spec_sha(spec),
        "fusegen": _generator(),
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
        "sources": {str(path): sha(path) for path in sources},
    }
    write_if_different(record, json.dumps(said, indent=1))


def _spec_sha(spec: Path) -> str:
    """Return a hash of a spec and of what `fusegen tune` found for it."""
    found = tuned.path_of(spec)
    return sha(spec) + (sha(found) if found.exists() else "")


@functools.cache
def _generator() -> str:
    """Return a hash of all that decides what a spec renders to: fusegen's source and templates."""
    total = hashlib.sha256()
    sources = sorted(paths.package().rglob("*.py"))
    templates = sorted(p for p in paths.templates().rglob("*") if p.is_file())
    for path in (*sources, *templates):
        total.update(str(path.name).encode())
        total.update(path.read_bytes())
    return total.hexdigest()
