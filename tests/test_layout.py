"""The packages of fusegen are the pipeline: imports point one way, as docs/architecture.md lists them."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
from collections import Counter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "fusegen"
MODULES = sorted(PACKAGE.rglob("*.py"))
#: The way in: it imports what a call needs when it is called.
DOORS = {"fusegen", "fusegen.__main__"}


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


NAMES = {module_of(path) for path in MODULES}


def imports_of(path: Path) -> set[str]:
    """Return the modules of fusegen that a module imports when it runs, wherever in it."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):  # what is imported for its types alone does not run
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & NAMES or {str(node.module)}
    return {name for name in found if name.split(".")[0] == "fusegen"}


@functools.cache  # not at import: each process of pytest collects this file, and one runs its tests
def imports() -> dict[str, set[str]]:
    return {module_of(path): imports_of(path) for path in MODULES}


def order_of(inside: str) -> list[str]:
    """Return the parts of a package, each after what it imports; a cycle is an error that names it."""
    depth = inside.count(".") + 2
    graph: dict[str, set[str]] = {}
    for name, imported in imports().items():
        if name in DOORS or not name.startswith(f"{inside}."):
            continue
        own = ".".join(name.split(".")[:depth])
        others = {".".join(n.split(".")[:depth]) for n in imported if n.startswith(f"{inside}.")}
        graph.setdefault(own, set()).update(others - {own} - DOORS)
    return [*graphlib.TopologicalSorter(graph).static_order()]


@pytest.mark.parametrize("package", sorted(module_of(p) for p in PACKAGE.rglob("__init__.py")))
def test_imports_point_one_way(package: str) -> None:
    order_of(package)


def test_the_docs_have_the_order_of_the_packages() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    said = [f"fusegen.{name}" for name in re.findall(r"^\| `fusegen/(\w+)/` ", text, re.MULTILINE)]
    assert sorted(said) == sorted(order_of("fusegen"))
    for name, imported in imports().items():
        own = ".".join(name.split(".")[:2])
        for other in {".".join(n.split(".")[:2]) for n in imported} - DOORS:
            if name not in DOORS:
                assert said.index(other) <= said.index(own), (
                    f"{name} imports {other}, which is below it"
                )


def test_a_listing_fits_the_eye() -> None:
    listed = {p.name for p in PACKAGE.iterdir()} - {"__pycache__", "py.typed"}
    assert len(listed) <= 14


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=module_of)
def test_a_package_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
    assert len(path.read_text().splitlines()) < 140, (
        "a package's __init__ only gives what is public"
    )


def test_the_runtime_imports_torch_alone() -> None:
    """So that a built package needs nothing else of fusegen, and no sympy."""
    heavy = {"sympy", "jinja2", "pydantic", "yaml", "rich", "typer"}
    for path in (*(PACKAGE / "runtime").glob("*.py"), *(PACKAGE / "base").glob("*.py")):
        for name in imports_of(path):
            assert name.startswith(("fusegen.runtime", "fusegen.base")), f"{path} imports {name}"
        words = re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        assert not heavy & set(words), path


def test_public_names_stay() -> None:
    """What docs and users import: `fusegen.build`, `load`, ops of one's own, atoms and kinds."""
    import fusegen
    from fusegen.atoms import exp, sigmoid
    from fusegen.ops import op
    from fusegen.program import Kind
    from fusegen.runtime import Chain

    assert callable(fusegen.build)
    assert callable(fusegen.load)
    assert fusegen.__version__
    assert all(map(callable, (exp, sigmoid, op, Kind, Chain)))


def test_every_file_of_tests_has_a_name_of_its_own() -> None:
    """pytest collects none of two files of one name, and says so only where it collects both."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
