"""Copies functions and classes of fusegen into one text, each after what it uses, without the imports."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

from fusegen.base import paths

__all__ = ["PythonParts", "python_parts"]


@dataclass
class PythonParts:
    """Copied definitions.

    Args:
        imports: import statements that they need, of other libraries.
        texts: the text of each definition by its name, in an order in which they can run.
    """

    imports: dict[str, None] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def python_parts(wanted: Iterable[tuple[str, str]]) -> PythonParts:
    """Return definitions of fusegen with all that they use.

    Args:
        wanted: each module and a name in it, such as ("fusegen.runtime.submodules", "plain").

    Raises:
        ValueError: if two definitions have the same name.
    """
    found, origins = PythonParts(), dict[str, str]()
    seen: set[tuple[str, int]] = set()

    def add(module: str, name: str) -> None:
        place = _defined_in(module, name)
        if place is None:  # of another library
            found.imports[_Module.of(module).imported[name]] = None
            return
        owner, node = place
        if origins.setdefault(name, owner) != owner:
            raise ValueError(f"{owner} and {origins[name]} both define {name}")
        if (owner, node.lineno) in seen:
            return
        seen.add((owner, node.lineno))
        source = _Module.of(owner)
        for used in _names(node):
            if used in source.defined or used in source.imported:
                add(owner, used)
        found.texts[name] = source.text_of(name)

    for module, name in wanted:
        add(module, name)
    return found


class _Module:
    """A source file: its top-level definitions and imports."""

    def __init__(self, name: str) -> None:
        path = paths.package().joinpath(*name.split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        self.lines = file.read_text().splitlines()
        self.defined: dict[str, ast.stmt] = {}
        self.imported: dict[str, str] = {}
        self.origins: dict[str, tuple[str, str]] = {}
        previous = 0
        self._begins: dict[str, int] = {}
        for node in ast.parse("\n".join(self.lines)).body:
            for name_ in _assigned(node):
                self.defined[name_] = node
                self._begins[name_] = self._with_comment(node, previous)
            if isinstance(node, ast.ImportFrom) and node.module != "__future__":
                for alias in node.names:
                    name_ = alias.asname or alias.name
                    one = ast.ImportFrom(node.module, [alias], 0)
                    self.imported[name_] = ast.unparse(one)
                    if str(node.module).startswith("fusegen"):
                        self.origins[name_] = (str(node.module), alias.name)
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name_ = (alias.asname or alias.name).partition(".")[0]
                    self.imported[name_] = ast.unparse(ast.Import([alias]))
            previous = node.end_lineno or previous

    @staticmethod
    @cache
    def of(name: str) -> _Module:
        """Return a module, read once."""
        return _Module(name)

    def _with_comment(self, node: ast.stmt, previous: int) -> int:
        """Return the first line of a statement, its decorators and the comment above it."""
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)]) - 1
        while first > previous and self.lines[first - 1].startswith("#"):
            first -= 1
        return first

    def text_of(self, name: str) -> str:
        """Return the text of a definition."""
        node = self.defined[name]
        text = "\n".join(self.lines[self._begins[name] : node.end_lineno])
        return re.sub(r"  # (type: ignore|noqa)[^#\n]*", "", text)


def _defined_in(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Return where a name is defined, through imports within fusegen; None of other libraries' names."""
    source = _Module.of(module)
    while name not in source.defined:
        if name not in source.origins:
            return None
        module, name = source.origins[name]
        source = _Module.of(module)
    return module, source.defined[name]


def _assigned(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return [name for name in names if name != "__all__"]


def _names(node: ast.stmt) -> list[str]:
    """Return the names that a statement uses, in their order."""
    found = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    return [name for name in dict.fromkeys(found) if not hasattr(builtins, name)]
