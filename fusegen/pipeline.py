"""Spec file -> chain -> the files of a generated package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fusegen import chain, render, spec, tuned


@dataclass(frozen=True)
class RenderedPackage:
    """The text of each file of a package, by file name."""

    name: str
    files: Mapping[str, str]


def derive(path: Path) -> chain.Chain:
    """Return what is derived from a spec file.

    Raises:
        SpecError: where the spec is wrong.
    """
    return chain.derive(spec.load(path))


def render_package(path: Path) -> RenderedPackage:
    """Return the generated package of a spec file, in memory.

    Raises:
        SpecError: where the spec is wrong.
    """
    derived = derive(path)
    return RenderedPackage(derived.spec.name, render.render(derived, tuned.read(path)))
