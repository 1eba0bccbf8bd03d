"""Imports a generated package from any folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_PARENT = "fusegen_generated"


def load_package(name: str, out: Path) -> ModuleType:
    """Import the package `name` that lies in the folder `out`.

    Raises:
        ImportError: where it was not generated or not compiled.
    """
    file = (out / name / "__init__.py").resolve()
    if not file.exists():
        raise ImportError(f"{name}: {file} is not there; run `fusegen build` on its spec")
    qualified = f"{_PARENT}.{name}"
    known = sys.modules.get(qualified)
    if known is not None and known.__file__ == str(file):
        return known
    spec = importlib.util.spec_from_file_location(qualified, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name}: {file} cannot be imported")
    sys.modules.setdefault(_PARENT, ModuleType(_PARENT))  # pickle imports it first
    module = importlib.util.module_from_spec(spec)
    sys.modules[qualified] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[qualified]
        raise
    return module
