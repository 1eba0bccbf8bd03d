"""The results of `fusegen tune` for a spec: a file beside it, `NAME.tuned.json`, which `build` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different

Parameters = Mapping[str, Mapping[str, int]]


def path_of(spec: Path) -> Path:
    """Return the path of a spec's results."""
    return spec.with_suffix(".tuned.json")


def read(spec: Path) -> Parameters:
    """Return the launch parameters found for a spec, by operator and name; empty if there are none.

    Raises:
        UserError: if `fusegen tune` did not write the file.
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
    """Whether kernels have this operator and these parameters, which become code."""
    from fusegen.spec.model import LAUNCH_PARAMETERS, OPERATORS

    return name in OPERATORS and all(
        parameter in LAUNCH_PARAMETERS and type(value) is int and 1 <= value <= 1024
        for parameter, value in parameters.items()
    )


def write(spec: Path, parameters: Parameters, measured: Mapping[str, Any]) -> None:
    """Write a spec's results, and the machine they were measured on."""
    said = json.dumps({"measured": measured, "launch": parameters}, indent=1)
    write_if_different(path_of(spec), said + "\n")
