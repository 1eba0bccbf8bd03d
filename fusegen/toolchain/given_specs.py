"""Specs that a program gives as text or as a dict: files, which builds and messages need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different
from fusegen.spec.names import package_problem

__all__ = ["files_of_given", "path_of"]

_FORM = 'name it: fusegen.build({"my_chain": …})'


def files_of_given(specs: Mapping[str, str | Mapping[str, Any]], out: Path) -> list[Path]:
    """Write specs into a folder below `out`, and return their files.

    Args:
        specs: each package's name with its spec, as the text of a file or as what such a file holds.
        out: the folder of the packages.

    Raises:
        UserError: if a name cannot name a package, or a spec is neither text nor a dict that YAML can write.
    """
    texts = {name: _text(name, given) for name, given in specs.items()}
    paths = []
    for name, text in texts.items():
        path = out / ".build" / "specs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_if_different(path, text)
        paths.append(path)
    return paths


def path_of(given: Any) -> Path:
    """Return a spec's file or name as a path.

    Raises:
        UserError: if it is neither.
    """
    if not isinstance(given, str | Path):
        raise UserError(
            f"a spec is a file, a name or a dict, not {type(given).__name__}; several are several "
            "arguments: fusegen.build(*specs)"
        )
    return Path(given)


def _text(name: str, given: str | Mapping[str, Any]) -> str:
    """Return the text of a spec."""
    if name == "chain" and isinstance(given, list):
        raise UserError(f"a spec as a dict has no file that names its package; {_FORM}")
    problem = package_problem(name)
    if problem:
        raise UserError(problem.replace("rename the file", "choose another name"))
    if isinstance(given, str):
        return given
    if not isinstance(given, Mapping):
        raise UserError(f"the spec {name!r} is {type(given).__name__}; give its text or a dict")
    try:
        return yaml.safe_dump(dict(given), sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise UserError(
            f"the spec {name!r} has a value that YAML cannot write: {error}; give dicts, lists, text, numbers"
        ) from error
