"""A copy of the runtime that is part of a wheel, and generated code that uses it.

All imports become relative, so that the copy works wherever the wheel's package is, and beside another
version of fusegen. Nothing else changes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from fusegen.base import paths
from fusegen.tools.shipping.names import RUNTIME

_IMPORT = re.compile(r"^(\s*)from fusegen\.", re.MULTILINE)
_UNSHIPPED = "DISTRIBUTION: str | None = None\n"


def relative(text: str, depth: int, inside: str) -> str:
    """Return Python code with imports of the copy in place of those of fusegen.

    Args:
        text: the code.
        depth: how many folders its file is below the one that `inside` starts from.
        inside: the path from there to the copy, with dots; "" in the copy itself.
    """
    place = "." * (depth + 1) + (f"{inside}." if inside else "")
    changed = _IMPORT.sub(rf"\1from {place}", text)
    left = [name for name in imports_of(changed) if name.split(".")[0] == "fusegen"]
    assert not left, f"an import that is not `from fusegen.… import …`: {left}"
    return changed


def imports_of(text: str) -> list[str]:
    """Return the modules that code imports from fusegen, each name that it takes as a module too."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in found if name.split(".")[0] == "fusegen"]


def runtime_files(distribution: str, users: Iterable[str]) -> dict[str, str]:
    """Return the files of the copy, by their paths in it.

    Args:
        distribution: the wheel's name.
        users: the code that imports it; what no code needs is left out.
    """
    modules: dict[str, str] = {}
    waiting = [name for text in users for name in imports_of(text)]
    while waiting:
        name = waiting.pop()
        text = _source(name)
        if name in modules or text is None:
            continue
        modules[name] = text
        waiting += [*imports_of(text), name.rpartition(".")[0]]
    files = {
        "__init__.py": f'"""The part of fusegen that the packages of {distribution} need."""\n'
    }
    for name, text in modules.items():
        file = _file(name)
        assert file is not None
        files[file] = relative(text, file.count("/"), "")
    shipped = files["base/shipped.py"]
    assert shipped.count(_UNSHIPPED) == 1
    files["base/shipped.py"] = shipped.replace(
        _UNSHIPPED, f'DISTRIBUTION: str | None = "{distribution}"\n'
    )
    return files


def _file(name: str) -> str | None:
    """Return where a module of fusegen is, below fusegen's folder."""
    path = "/".join(name.split(".")[1:])
    for file in (f"{path}/__init__.py", f"{path}.py"):
        if path and (paths.package() / file).is_file():
            return file
    return None


def _source(name: str) -> str | None:
    file = _file(name)
    return (paths.package() / file).read_text() if file else None


def write_runtime(folder: Path, distribution: str, users: Iterable[str]) -> None:
    """Write the copy into a folder.

    Args:
        folder: the folder.
        distribution: as in `runtime_files`.
        users: as in `runtime_files`.
    """
    for path, text in runtime_files(distribution, users).items():
        file = folder / RUNTIME / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def package_code(text: str, depth: int) -> str:
    """Return the `__init__.py` of a generated package with imports of the copy.

    Args:
        text: the file.
        depth: how many folders it is below the one that has the copy.
    """
    return relative(text, depth, RUNTIME)
