"""Writes imported specs into a folder, and never over another spec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different
from fusegen.models.imported import ImportedSpec

__all__ = ["write_specs"]


def write_specs(specs: Sequence[ImportedSpec], folder: Path, *, force: bool) -> list[Path]:
    """Write specs into a folder; return their files.

    Args:
        specs: the specs.
        folder: the folder, which is made if it is not there.
        force: whether to replace specs that are there.

    Raises:
        UserError: if a spec is there already, and is another one. Nothing is written then.
    """
    paths = {folder / f"{spec.name}.yaml": spec.text for spec in specs}
    there = [p for p, text in paths.items() if p.exists() and p.read_text() != text]
    if there and not force:
        shown = ", ".join(map(str, there))
        are = (
            "are there already, and not as the model is now"
            if len(there) > 1
            else ("is there already, and not as the model is now")
        )
        raise UserError(
            f"{shown} {are}; --force replaces what is there, --out names another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in paths.items():
        write_if_different(path, text)
    return [*paths]
