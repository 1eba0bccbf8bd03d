"""Writes files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from fusegen.base.errors import UserError


def write_if_different(path: Path, text: str) -> bool:
    """Write a file, atomically, only where its text changes; return whether it did.

    Raises:
        UserError: where it cannot be written; what was there before is there still.
    """
    content = text.encode()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and path.read_bytes() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(content)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(cannot_write(path, error)) from error
    return True


def cannot_write(path: Path, error: OSError) -> str:
    """Return what a user reads where the system refuses to write a file."""
    return f"{path} cannot be written: {error.strerror}; free space there or choose another folder"
