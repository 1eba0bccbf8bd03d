"""Builds packages for this machine so that one that is refused does not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusegen.base.errors import UserError
from fusegen.toolchain import builder
from fusegen.toolchain.ninja_run import Progress

__all__ = ["build_each"]

#: As many specs are derived in the time that a process takes to start and to import what derives them: half a
#: second, where a region of a model takes 20 to 100 ms.
_FEW = 8


def build_each(
    specs: Sequence[Path], out: Path, progress: Progress | None = None
) -> dict[str, str]:
    """Build packages; return why some cannot be built, by name.

    Args:
        specs: the spec files.
        out: the folder of the packages.
        progress: where to say how far it is.
    """
    if not specs:
        return {}
    try:
        builder.build(specs, out=out, workers=len(specs) > _FEW, progress=progress)
        return {}
    except UserError as error:
        if len(specs) == 1:
            return {specs[0].stem: str(error)}
    refused = {path.stem: reason for path in specs if (reason := _mistake(path))}
    left = [path for path in specs if path.stem not in refused]
    if refused:
        return refused | build_each(left, out, progress)
    for path in left:  # the compiler, or the folder
        refused |= build_each([path], out, progress)
    return refused


def _mistake(spec: Path) -> str:
    """Return why a package cannot be derived; empty if it can."""
    from fusegen.toolchain import pipeline

    try:
        pipeline.render_package(spec)
    except UserError as error:
        return str(error)
    return ""
