"""What `fusegen tune` found for a spec: a file beside it, `NAME.tuned.json`, that `build` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different

Parameters = Mapping[str, Mapping[str, int]]


def path_of(spec: Path) -> Path:
    """Return where what was found for a spec lies."""
    return spec.with_suffix(".tuned.json")


def read(spec: Path) -> Parameters:
    """Return the launch parameters found for a spec, by operator and name; nothing where none were.

    Raises:
        UserError: where the file is not what `fusegen tune` writes.
    """
    path = path_of(spec)
    if not path.exists():
        return {}
    try:
        found: Parameters = json.loads(path.read_bytes())["launch"]
        sound = all(_sound(name, parameters) for name, parameters in found.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise UserError(f"{path} is not what `fusegen tune` writes; remove it")
    return found


def _sound(name: str, parameters: Mapping[str, int]) -> bool:
    """Whether an operator and its parameters are ones that kernels have: they become code."""
    from fusegen.spec.model import LAUNCH_PARAMETERS, OPERATORS

    return name in OPERATORS and all(
        parameter in LAUNCH_PARAMETERS and type(value) is int and 1 <= value <= 1024
        for parameter, value in parameters.items()
    )


def write(spec: Path, parameters: Parameters, measured: Mapping[str, Any]) -> None:
    """Write what was found for a spec, and on what."""
    said = json.dumps({"measured": measured, "launch": parameters}, indent=1)
    write_if_different(path_of(spec), said + "\n")
