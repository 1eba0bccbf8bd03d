"""A hash of a source and its headers, which its ninja command contains.

ninja compares only file times. A copied, unpacked or installed file may be older than the object compiled
from the file that it replaces. But ninja also runs a command again if the command has changed, as it does
with the hash.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


class SourceHashes:
    """Hashes sources with the headers they include, from their own folder or from `include`."""

    def __init__(self, include: Path) -> None:
        self._include = include
        self._read: dict[Path, tuple[bytes, tuple[Path, ...]]] = {}

    def of(self, source: Path) -> str:
        """Return a hash of a source and of what it includes; the hash of nothing if the source is missing."""
        total = hashlib.sha256()
        seen: set[Path] = set()
        waiting = [source]
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            digest, included = self._file(path)
            total.update(digest)
            waiting += included
        return total.hexdigest()[:16]

    def _file(self, path: Path) -> tuple[bytes, tuple[Path, ...]]:
        if path not in self._read:
            content = path.read_bytes() if path.is_file() else b""
            named = _INCLUDE.findall(content.decode(errors="replace"))
            found = [(path.parent / name, self._include / name) for name in named]
            included = tuple(p for places in found for p in places if p.is_file())
            self._read[path] = hashlib.sha256(content).digest(), included
        return self._read[path]
