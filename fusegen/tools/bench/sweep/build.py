"""Writes the drawn specs and builds their packages together; one that is refused does not stop the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different
from fusegen.toolchain import builder
from fusegen.toolchain.builder import Backend, Progress
from fusegen.tools.bench.sweep.specs import DrawnSpec


def spec_file(spec: DrawnSpec, out: Path) -> Path:
    """Return where a spec is written."""
    return out / "specs" / f"{spec.name}.yaml"


def write_specs(specs: Sequence[DrawnSpec], out: Path) -> list[Path]:
    """Write the specs below the folder of the packages, and return their files."""
    paths = [spec_file(spec, out) for spec in specs]
    for spec, path in zip(specs, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_if_different(path, f"# {spec.form}\n{spec.text}")
    return paths


def build(
    specs: Sequence[DrawnSpec], out: Path, device: str, progress: Progress | None = None
) -> dict[str, str]:
    """Build the packages, for this machine alone; return why some cannot be built, by their names.

    Args:
        specs: the specs.
        out: the folder of the packages; what is up to date there is not built again.
        device: "cuda" or "cpu".
        progress: where to say how far it is.
    """
    return _build(write_specs(specs, out), out, "cuda" if device == "cuda" else "cpu", progress)


def _build(
    paths: Sequence[Path], out: Path, backend: Backend, progress: Progress | None
) -> dict[str, str]:
    try:
        builder.build(paths, out=out, backend=backend, progress=progress)
        return {}
    except UserError as error:
        if len(paths) == 1:
            return {paths[0].stem: str(error)}
    # Halves, not one by one: those that can be built are still compiled side by side.
    middle = len(paths) // 2
    return _build(paths[:middle], out, backend, progress) | _build(
        paths[middle:], out, backend, progress
    )
