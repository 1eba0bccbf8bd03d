"""Spec file -> chain -> the files of a generated package."""

from __future__ import annotations

from pathlib import Path

from fusegen import chain, render, spec
from fusegen.base import paths
from fusegen.toolchain import tuned
from fusegen.toolchain.rendered import RenderedPackage


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
    files = render.render(derived, tuned.read(path))
    own = {Path(s.op.formula.__code__.co_filename).resolve() for s in derived.spec.steps if s.op}
    foreign = sorted(p for p in own if paths.package() not in p.parents and p.exists())
    return RenderedPackage(derived.spec.name, files, tuple(foreign))
