"""What is up to date: a package is, while all that it was rendered from and its files are as they were.

A record of that lies in `.build/`, beside what is compiled. A spec without a whole record is derived again.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusegen.base import paths
from fusegen.base.files import write_if_different
from fusegen.base.stamp import sha
from fusegen.toolchain import tuned

#: The packages whose version may change what a spec renders to.
_LIBRARIES = ("clang-format", "jinja2", "mpmath", "pydantic", "pyyaml", "sympy")


def inputs_of(spec: Path) -> dict[str, str]:
    """Return what a package is rendered from, by name, each as a hash or a version.

    The backend is not among it: a package has the sources of all.
    """
    return {
        "name": spec.name,  # the sources name it
        "spec": _sha_if_there(spec),
        "tuned": _sha_if_there(tuned.path_of(spec)),
        "fusegen": _generator(),
        **_versions(),
    }


def is_fresh(spec: Path, package: Path, record: Path) -> bool:
    """Return whether a package's files are what its spec would render to.

    Args:
        spec: the spec file.
        package: the package's folder.
        record: what `write_record` wrote when the package was rendered.
    """
    inputs = inputs_of(spec)
    try:
        recorded = json.loads(record.read_text())
        if recorded["inputs"] != inputs:
            return False
        named = [(package / name, digest) for name, digest in recorded["files"].items()]
        named += [(Path(name), digest) for name, digest in recorded["sources"].items()]
        return bool(named) and all(sha(path) == digest for path, digest in named)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False  # no record or a damaged one, or a file that is no longer there: render again


def write_record(
    inputs: Mapping[str, str],
    files: Mapping[str, str],
    record: Path,
    sources: Sequence[Path] = (),
) -> None:
    """Record what a package was rendered from, and to.

    Args:
        inputs: what `inputs_of` returned before the spec was read: a change since then is seen so.
        files: the text of each file of the package.
        record: where to write.
        sources: the files of others than fusegen that declare its ops and atoms.
    """
    said = {
        "inputs": dict(inputs),
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
        "sources": {str(path): sha(path) for path in sources},
    }
    write_if_different(record, json.dumps(said, indent=1))


def _sha_if_there(path: Path) -> str:
    try:
        return sha(path)
    except OSError:  # where it must be there, deriving says what is wrong
        return ""


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # copied, not installed
            versions[name] = ""
    return versions


@functools.cache
def _generator() -> str:
    """Return a hash of fusegen's own sources and templates, with their places."""
    total = hashlib.sha256()
    for root, pattern in ((paths.package(), "*.py"), (paths.templates(), "*")):
        for path in sorted(p for p in root.rglob(pattern) if p.is_file()):
            total.update(f"{path.relative_to(root)}:{sha(path)}\n".encode())
    return total.hexdigest()
