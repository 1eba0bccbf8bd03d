"""Imports files with ops and atoms of a user's own, before a command runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from fusegen.base.errors import UserError

__all__ = ["import_declarations"]


def import_declarations(path: Path) -> None:
    """Import a Python file by its name, as `import` in its folder would.

    Raises:
        UserError: if it is not there, or is not Python.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if path.suffix != ".py" or not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"--declare {path}: there is no such Python file")
    if str(path.parent.resolve()) not in sys.path:
        sys.path.insert(0, str(path.parent.resolve()))  # it may import what is beside it
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
