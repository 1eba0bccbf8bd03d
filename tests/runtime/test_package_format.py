"""The format of generated packages: what of the runtime they call, and a package of another format."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

import fusegen
from fusegen import runtime
from fusegen.base.version import FORMAT
from fusegen.runtime import memory_format, rearranged, steps, submodules, windows

#: The format, and a hash of how everything is called that packages of this format import from the runtime.
#: If the hash changes, packages from before may fail: raise FORMAT in fusegen/base/version.py and
#: put both here. If the change only adds what has a default, put the new hash here alone. Raise FORMAT also
#: if the runtime takes something else of packages for granted, as format 4: what stands for an absent
#: cotangent is not zero.
KNOWN = (5, "5b7ac8cb7d33")


def parameters(called: Callable[..., object]) -> str:
    """Return the parameters of a function or class, `?` after those that have a default."""
    found = inspect.signature(called).parameters.values()
    return ", ".join(p.name + ("" if p.default is p.empty else "?") for p in found)


def test_the_format_changes_with_what_packages_call() -> None:
    names = {f"runtime.{name}": getattr(runtime, name) for name in runtime.__all__}
    for module in (memory_format, rearranged, steps, submodules, windows):
        for name, called in inspect.getmembers(module, inspect.isfunction):
            if called.__module__ == module.__name__ and not name.startswith("_"):
                names[f"{module.__name__}.{name}"] = called
    names["a chain"] = runtime.Chain.__call__
    signatures = "".join(f"{name}: {parameters(names[name])}\n" for name in sorted(names))
    found = hashlib.sha256(signatures.encode()).hexdigest()[:12]
    assert (FORMAT, found) == KNOWN, f"packages call\n{signatures}"


def test_every_name_that_packages_import_is_counted() -> None:
    templates = [p.read_text() for p in (ROOT / "templates").rglob("*.j2")]
    imports = re.findall(r"^from fusegen\.(\S+) import", "\n".join(templates), re.MULTILINE)
    assert set(imports) == {
        *("runtime", "runtime.memory_format", "runtime.steps", "runtime.submodules"),
        *("runtime.rearranged", "runtime.windows"),
    }


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("", "an older state of fusegen .*: it has format 1, and this one runs format"),
        (
            f", {FORMAT + 1}",
            f"a newer state of fusegen .*: it has format {FORMAT + 1}, and this one",
        ),
    ],
)
def test_a_package_of_another_format_says_so(
    form: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that another commit of the same version generated, with keywords that this one does not know."""
    text = (ROOT / "generated" / "scale_softmax" / "__init__.py").read_text()
    other = re.sub(r'^(made_by\("[^"]+", "\w+", "\w+"), \d+\)', rf"\1{form})", text, flags=re.M)
    assert other != text
    package = tmp_path / "another_format"
    package.mkdir()
    (package / "__init__.py").write_text(other.replace("operands=", "unknown=1, operands=", 1))
    message = rf"scale_softmax: {said}.*; run `fusegen build scale_softmax`$"
    with pytest.raises(ImportError, match=message):
        fusegen.load("another_format", tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ImportError, match=message):  # and by itself
        importlib.import_module("another_format")
