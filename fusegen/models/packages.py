"""Builds the packages of regions, those of a graph side by side, and keeps them for the next time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch

from fusegen.base.files import write_if_different
from fusegen.models.spec_text import PackageSpec
from fusegen.runtime.loading import load_package
from fusegen.toolchain.model_cache import limit_here, mark_used, trim

__all__ = ["is_built", "is_there", "load_packages", "packages_of", "write_specs"]

_LOCK = threading.Lock()


def packages_of(
    specs: Sequence[PackageSpec], folder: Path, *, build: bool
) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Return the packages of some specs by name, and why the others have none.

    Args:
        specs: the specs.
        folder: holds `specs/`, for people to read, and `generated/`.
        build: whether to build what is not there; otherwise no compiler is needed.
    """
    refused: dict[str, str] = {}
    names = {spec.name for spec in specs}
    mark_used(folder, names)
    if build and all(is_built(spec, folder) for spec in specs):
        loaded, refused = load_packages(specs, folder, {})
        if not refused:
            return loaded, {}
    if build:
        from fusegen.toolchain.build_each import build_each
        from fusegen.toolchain.patient import Patient

        with _LOCK:
            paths = write_specs(specs, folder)
            count = "1 package" if len(paths) == 1 else f"{len(paths)} packages"
            patient = Patient(f"{count} of a model")
            refused = build_each(paths, folder / "generated", patient)
            mark_used(folder, names)
            limit = limit_here()
            if limit is not None:
                trim(folder, limit, patient.say, keep=names)
    return load_packages(specs, folder, refused)


def load_packages(
    specs: Sequence[PackageSpec], folder: Path, refused: dict[str, str]
) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Return the packages of some specs by name, as they are in a folder, and why the others have none.

    Args:
        specs: the specs.
        folder: the folder.
        refused: why some could not be built.
    """
    refused, loaded = dict(refused), {}
    for name in dict.fromkeys(spec.name for spec in specs):
        if name not in refused:
            try:
                loaded[name] = load_package(name, folder / "generated")
            except ImportError as error:
                refused[name] = str(error)
    return loaded, refused


def write_specs(specs: Sequence[PackageSpec], folder: Path) -> list[Path]:
    """Write specs into a folder, and return their files."""
    paths = []
    for spec in {spec.name: spec for spec in specs}.values():
        path = folder / "specs" / f"{spec.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_if_different(path, spec.text)
        paths.append(path)
    return paths


def is_built(spec: PackageSpec, folder: Path) -> bool:
    """Return whether a package is there, of its spec and of this fusegen; loading it checks its libraries."""
    from fusegen.toolchain.builder import is_rendered
    from fusegen.toolchain.compilers import find_nvcc

    path, out = folder / "specs" / f"{spec.name}.yaml", folder / "generated"
    cuda = torch.cuda.is_available() and find_nvcc() is not None
    libraries = ("_cpu.so", "_cuda.so") if cuda else ("_cpu.so",)
    there = path.is_file() and path.read_text() == spec.text and is_rendered(path, out)
    return there and all((out / spec.name / file).exists() for file in libraries)


def is_there(spec: PackageSpec, folder: Path) -> bool:
    """Return whether a folder has a package, as one that was shipped without its specs may."""
    return (folder / "generated" / spec.name / "__init__.py").is_file()
