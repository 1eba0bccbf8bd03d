"""Spec file -> chain -> the files of a generated package."""

from __future__ import annotations

import inspect
from pathlib import Path

import sympy as sp

from fusegen import chain, render, spec
from fusegen.atoms import ATOMS
from fusegen.base import paths
from fusegen.program import Map
from fusegen.toolchain import tuned
from fusegen.toolchain.rendered import RenderedPackage


def derive(path: Path, what: str = "this") -> chain.Chain:
    """Return what is derived from a spec file of one chain; `what` takes only such files, for a message.

    Raises:
        SpecError: where the spec is wrong, or has several chains.
    """
    return chain.derive(spec.load(path), what)


def derive_all(path: Path) -> chain.Chains:
    """Return what is derived from a spec file.

    Raises:
        SpecError: where the spec is wrong.
    """
    return chain.derive_all(spec.load(path))


def render_package(path: Path) -> RenderedPackage:
    """Return the generated package of a spec file, in memory.

    Raises:
        SpecError: where the spec is wrong.
    """
    derived = derive_all(path)
    files = render.render(derived, tuned.read(path))
    named = {inspect.unwrap(s.op.formula).__code__.co_filename for s in derived.spec.steps if s.op}
    named |= {ATOMS[function].source for function in _functions(derived) if function in ATOMS}
    foreign = sorted(path for path in paths.foreign(named) if path.exists())
    return RenderedPackage(derived.spec.name, files, tuple(foreign))


def _functions(derived: chain.Chains) -> set[type[sp.Basic]]:
    """Return the functions in a chain's programs."""
    modes = (mode for segment in derived.segments for mode in segment.modes)
    nodes = (node for mode in modes for program in mode.programs for node in program.nodes())
    return {f.func for node in nodes if isinstance(node, Map) for f in node.expr.atoms(sp.Function)}
