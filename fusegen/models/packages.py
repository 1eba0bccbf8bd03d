"""Builds the packages of regions, those of a graph side by side, and keeps them for the next time."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different
from fusegen.models.spec_text import PackageSpec
from fusegen.runtime.loading import load_package

__all__ = ["default_folder", "packages_of"]

_LOCK = threading.Lock()


def default_folder() -> Path:
    """Return the folder that packages of models are kept in: `FUSEGEN_MODELS`, or one below ~/.cache."""
    given = os.environ.get("FUSEGEN_MODELS")
    return Path(given) if given else Path.home() / ".cache" / "fusegen" / "models"


def packages_of(
    specs: Sequence[PackageSpec], folder: Path, *, build: bool
) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Return the packages of some specs by name, and why the others have none.

    Args:
        specs: the specs.
        folder: holds `specs/`, for people to read, and `generated/`.
        build: whether to build what is not there; otherwise no compiler is needed.
    """
    names = list(dict.fromkeys(spec.name for spec in specs))
    refused: dict[str, str] = {}
    if build:
        from fusegen.toolchain.compilers import for_this_machine

        with _LOCK, for_this_machine():
            paths = []
            for spec in {spec.name: spec for spec in specs}.values():
                path = folder / "specs" / f"{spec.name}.yaml"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_if_different(path, spec.text)
                paths.append(path)
            refused = _build(paths, folder / "generated")
    loaded = {}
    for name in names:
        if name not in refused:
            try:
                loaded[name] = load_package(name, folder / "generated")
            except ImportError as error:
                refused[name] = str(error)
    return loaded, refused


def _build(paths: Sequence[Path], out: Path) -> dict[str, str]:
    """Build packages; return why some cannot be built. One that is refused does not stop the others."""
    from fusegen.toolchain import builder, pipeline

    if not paths:
        return {}
    try:
        builder.build(paths, out=out)
        return {}
    except UserError as error:
        if len(paths) == 1:
            return {paths[0].stem: str(error)}
    refused = {}
    for path in paths:
        try:
            pipeline.derive(path)
        except UserError as error:
            refused[path.stem] = str(error)
    left = [path for path in paths if path.stem not in refused]
    if not refused:  # the compiler, or the folder
        for path in left:
            refused |= _build([path], out)
        return refused
    return refused | _build(left, out)
