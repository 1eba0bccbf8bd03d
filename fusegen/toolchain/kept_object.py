"""Keeps the objects that packages share (of fusegen/*.cpp and *.cu) for the next folder of packages.

Each is the same for all packages of a device. So a build takes it from `FUSEGEN_OBJECTS`, by default
~/.cache/fusegen/objects, and compiles it only where it is not there; `FUSEGEN_OBJECTS=0` keeps nothing. This
file needs nothing of fusegen: ninja runs it by itself, as `kept_object.py KEY OBJECT COMPILER…`. The key
stands for what the command does not say: the sources, and the versions of the compiler and of torch.

    object | its sha256
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_VARIABLE = "FUSEGEN_OBJECTS"
_DIGEST = hashlib.sha256().digest_size
#: How many objects are kept, those used last. They have 50 to 200 kB.
_MOST = 32
#: Their names, and those of such that are being written.
_OWN = re.compile(r"[0-9a-f]{32}\.o(\..+)?")


def environment() -> dict[str, str]:
    """Return the environment variables that tell ninja's commands, which run elsewhere, the folder."""
    given = os.environ.get(_VARIABLE)
    return {_VARIABLE: str(Path(given).absolute())} if given and given != "0" else {}


def folder() -> Path | None:
    """Return the folder in which objects are kept, or None if none are."""
    given = os.environ.get(_VARIABLE)
    if given == "0":
        return None
    try:
        return Path(given) if given else Path.home() / ".cache" / "fusegen" / "objects"
    except RuntimeError:  # this user has no home
        return None


def find(kept: Path) -> bytes | None:
    """Return an object that is kept, or None if it is not there or damaged."""
    try:
        content = kept.read_bytes()
    except OSError:
        return None
    with contextlib.suppress(OSError):  # a folder that is not ours
        os.utime(kept)
    code, digest = content[:-_DIGEST], content[-_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def keep(kept: Path, code: bytes) -> None:
    """Keep an object, whole or not at all, and remove those that were not used for longest."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f"{kept.name}.", dir=kept.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(code + hashlib.sha256(code).digest())
        os.replace(name, kept)
    except OSError:
        os.unlink(name)
        raise
    own = [path for path in kept.parent.iterdir() if _OWN.fullmatch(path.name)]
    for path in sorted(own, key=_used)[:-_MOST]:
        path.unlink(missing_ok=True)


def _used(path: Path) -> float:
    """Return when a file was last used; 0 if another build has removed it."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def main() -> int:
    """Make an object: find it, or compile and keep it."""
    key, made, *command = sys.argv[1:]
    place, name = folder(), hashlib.sha256("\0".join([key, *command]).encode()).hexdigest()[:32]
    kept = place / f"{name}.o" if place else None
    if kept and (code := find(kept)) is not None:
        Path(made).write_bytes(code)
        return 0
    failed = subprocess.run(command, check=False).returncode
    if kept and not failed:
        with contextlib.suppress(OSError):  # a full disk, or a folder that is not ours
            keep(kept, Path(made).read_bytes())
    return failed


if __name__ == "__main__":
    sys.exit(main())
