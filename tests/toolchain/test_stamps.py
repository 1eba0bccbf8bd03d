"""A library that is damaged, foreign or of other sources is one ImportError with the remedy."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

import fusegen
from fusegen.base import stamp
from fusegen.runtime import binaries
from fusegen.toolchain.builder import build

NAME = "stamped"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small package."""
    folder = tmp_path_factory.mktemp("stamps")
    (folder / f"{NAME}.yaml").write_text("order: 1\nchain:\n  - expr: x * 2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEGEN_NATIVE", "1")
        build([folder / f"{NAME}.yaml"], out=folder / "generated", backend="cpu")
    return folder / "generated"


@pytest.fixture
def package(built: Path, tmp_path: Path) -> Path:
    """The folder of a copy of it, for a test to spoil."""
    copy = tmp_path / "generated" / NAME
    shutil.copytree(built / NAME, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def works(package: Path) -> None:
    out = fusegen.load(package.name, package.parent).apply(torch.tensor([1.0, -3.0]))
    assert out.tolist() == [2.0, -6.0]


def refused(package: Path, reason: str) -> None:
    remedy = re.escape(f"run `fusegen build {package.name}`")
    with pytest.raises(ImportError, match=f"(?s){reason}.*{remedy}"):
        fusegen.load(package.name, package.parent)


def restamped(library: Path, **changes: Any) -> None:
    said = stamp.read(library).body()
    stamp.append(library, {**said, **changes})


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "half": (lambda c: c[: len(c) // 2], "has no stamp: it is cut short"),
    "a byte short": (lambda c: c[:-1], "has no stamp: it is cut short"),
    "its head alone": (lambda c: c[:64], "has no stamp: it is cut short"),
    "three bytes": (lambda c: c[:3], "is no library"),
    "a text": (lambda _: b"not a library\n", "is no library"),
    "zeros": (lambda c: bytes(len(c)), "is no library"),
    "a page of zeros": (lambda c: c[:4096] + bytes(4096) + c[8192:], "is damaged"),
    "a flipped bit": (lambda c: flipped(c, len(c) // 3), "is damaged"),
    "a flipped bit of the stamp": (lambda c: flipped(c, len(c) - 200), "is damaged"),
    "a flipped bit of the length": (lambda c: flipped(c, len(c) - 20), "is damaged"),
    "a stamp alone": (lambda c: c[-56:], "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_library_is_refused(damage: str, package: Path) -> None:
    library = package / "_cpu.so"
    spoil, reason = DAMAGE[damage]
    library.write_bytes(spoil(library.read_bytes()))
    refused(package, reason)


def test_a_bit_anywhere_is_noticed(package: Path) -> None:
    """In the library, and in each source that was compiled or says how to call it."""
    places = random.Random(0)
    for name in ("_cpu.so", *(n for n in stamp.SOURCES if (package / n).is_file())):
        file = package / name
        content = file.read_bytes()
        for _ in range(12):
            spoiled = flipped(content, places.randrange(len(content)))
            file.with_suffix(".new").write_bytes(spoiled)
            file.with_suffix(".new").replace(file)
            with pytest.raises(ImportError, match=r"run `fusegen build|import it again"):
                fusegen.load(NAME, package.parent)
        file.write_bytes(content)
    works(package)


def test_the_copy_that_is_not_spoiled_works(package: Path) -> None:
    works(package)


def test_a_folder_in_its_place_is_refused(package: Path) -> None:
    (package / "_cpu.so").unlink()
    (package / "_cpu.so").mkdir()
    with pytest.raises(ImportError, match="cannot be read"):
        fusegen.load(NAME, package.parent)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"device": "cuda"}, "is the library for cuda"),
        ({"fusegen": "9.9"}, "was built by fusegen 9.9, and this is"),
        ({"machine": "riscv64"}, "was built for riscv64, and this machine is"),
        ({"features": ["avx10_9"]}, "was built for another machine alone, .* lacks avx10_9"),
        ({"packages": {"other": {}}}, "is the library of other"),
        ({"unheard_of": 1}, "has the stamp of another version of fusegen"),
        ({"features": None}, "has the stamp of another version of fusegen"),
        ({"headers": "0"}, "was compiled from another fusegen's own headers"),
    ],
)
def test_a_foreign_library_is_refused(changes: dict[str, Any], reason: str, package: Path) -> None:
    restamped(package / "_cpu.so", **changes)
    refused(package, reason)


@pytest.mark.parametrize(
    "file", ["element.h", "form.h", "kernel.h", "kernel.cpp", "kernel.cu", "binding.cpp"]
)
def test_a_source_that_changed_is_named(file: str, package: Path) -> None:
    """As after an edit by hand or a `git pull`."""
    source = package / file
    before = source.stat()
    source.write_text(source.read_text() + "// edited\n")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))  # times say nothing
    refused(package, f"_cpu.so was compiled from another {file} than there is now")


def test_an_edited_python_side_is_refused(package: Path) -> None:
    source = package / "__init__.py"
    source.write_text(source.read_text() + "# edited\n")
    refused(package, "was compiled from another __init__.py")


def test_a_package_is_shipped_without_its_sources(package: Path) -> None:
    for path in package.iterdir():
        if path.name not in ("__init__.py", "_cpu.so"):
            path.unlink()
    works(package)
    (package / "__init__.py").write_text((package / "__init__.py").read_text() + "# edited\n")
    refused(package, "was compiled from another __init__.py")


def test_a_package_is_shipped_without_fusegens_headers(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusegen.base.paths.include", lambda: tmp_path / "none")
    works(package)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.h").write_text("// another state of fusegen\n")
    monkeypatch.setattr("fusegen.base.paths.include", lambda: tmp_path / "other")
    refused(package, "was compiled from another fusegen's own headers")


SHIPPED = """
import sys, torch, fusegen
print(fusegen.load("stamped", sys.argv[1]).apply(torch.tensor([1.0, -3.0])).tolist())
print(sorted(name for name in sys.modules if name.startswith("fusegen.") and "runtime" not in name))
"""


def test_what_a_shipped_package_needs(package: Path, tmp_path: Path) -> None:
    """Torch, the runtime and six small files: no compiler, no templates, no sources."""
    site = tmp_path / "site" / "fusegen"
    shutil.copytree(ROOT / "fusegen" / "runtime", site / "runtime")
    shutil.copy(ROOT / "fusegen" / "__init__.py", site)
    (site / "base").mkdir()
    for name in ("__init__", "version", "stamp", "shipped", "paths"):
        shutil.copy(ROOT / "fusegen" / "base" / f"{name}.py", site / "base")
    for path in package.iterdir():
        if path.name not in ("__init__.py", "_cpu.so"):
            path.unlink()
    command = [sys.executable, "-c", SHIPPED, str(package.parent)]
    environment = {**os.environ, "PYTHONPATH": str(site.parent)}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    parts = ("paths", "shipped", "stamp", "version")
    needed = ["fusegen.base", *(f"fusegen.base.{name}" for name in parts)]
    assert done.stdout.splitlines() == ["[2.0, -6.0]", str(needed)], done.stderr


def test_a_renamed_folder_still_works(package: Path) -> None:
    works(package.rename(package.with_name("renamed")))


def test_a_library_that_the_system_refuses_is_an_import_error(package: Path) -> None:
    """One of a whole stamp, for a system with other libraries."""
    library = package / "_cpu.so"
    said = {**stamp.read(library).body(), "fusegen": fusegen.__version__}
    said["packages"] = {NAME: {**said["packages"][NAME], "gone.h": "0"}}  # operators of their own
    library.write_bytes(b"\x7fELF, but not for this system")
    stamp.append(library, said)
    refused(package, "cannot be loaded here")


def newer(package: Path) -> None:
    """Make a package that a later fusegen generated, with keywords that this one does not know."""
    source = package / "__init__.py"
    text = source.read_text().replace(f'made_by("{fusegen.__version__}"', 'made_by("9.9.9"')
    source.write_text(text.replace("operands=[", "unknown=1,\n    operands=[", 1))
    library = package / "_cpu.so"
    said = stamp.read(library).body()
    said["packages"][NAME]["__init__.py"] = stamp.sha(source)
    stamp.append(library, {**said, "fusegen": "9.9.9"})


def test_a_package_of_a_newer_fusegen_says_so(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer(package)
    message = rf"fusegen 9\.9\.9 generated this package.*{fusegen.__version__}.*install fusegen 9"
    with pytest.raises(ImportError, match=message):
        fusegen.load(NAME, package.parent)
    monkeypatch.syspath_prepend(str(package.parent))
    with pytest.raises(ImportError, match=message):  # and by itself
        importlib.import_module(NAME)


def test_a_package_of_an_older_fusegen_says_so(package: Path) -> None:
    source = package / "__init__.py"
    lines = source.read_text().splitlines(keepends=True)
    source.write_text("".join(line for line in lines if not line.startswith("made_by(")))
    refused(package, "this is not a package of fusegen")


def test_a_library_of_cuda_is_looked_at_where_there_is_cuda(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "_cuda.so").write_bytes(b"\x7fELF cut short")
    works(package)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    refused(package, "_cuda.so has no stamp")
    shutil.copy(package / "_cpu.so", package / "_cuda.so")
    refused(package, "_cuda.so is the library for cpu")
    said = stamp.read(package / "_cpu.so").body()
    said["packages"][NAME]["element.h"] = "0"
    stamp.append(package / "_cuda.so", {**said, "device": "cuda"})
    refused(package, "_cuda.so was compiled from another element.h")


def test_operators_are_named_by_what_they_were_compiled_from(package: Path) -> None:
    found = stamp.read(package / "_cpu.so")
    namespace = fusegen.load(NAME, package.parent)._chain.namespace
    assert namespace == found.namespace(NAME)
    assert re.fullmatch(rf"fusegen_{NAME}_[0-9a-f]{{12}}", namespace)
    changes: list[dict[str, Any]] = [{"headers": "0"}, {"fusegen": "9"}]
    changes += [{"packages": {NAME: {"element.h": "0"}}}, {"dtypes": {NAME: ["float32"]}}]
    for change in changes:
        other = stamp.Stamp(**{**found.__dict__, **change})
        assert other.namespace(NAME) != namespace
    same = stamp.Stamp(**{**found.__dict__, "machine": "riscv64", "features": ()})
    assert same.namespace(NAME) == namespace  # programs move between machines


def test_a_stamp_survives_what_json_may_hold(tmp_path: Path) -> None:
    library = tmp_path / "_cpu.so"
    library.write_bytes(b"\x7fELF")
    said = {"device": "cpu", "fusegen": "ä\n", "machine": "", "features": [], "headers": ""}
    stamp.append(library, {**said, "packages": {}, "dtypes": {}})
    assert stamp.read(library).fusegen == "ä\n"
    assert json.loads(json.dumps(stamp.read(library).body()))["features"] == []


def test_the_check_loads_nothing(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        pytest.fail("a library was loaded")

    monkeypatch.setattr(binaries.ctypes, "CDLL", never)
    (package / "element.h").write_text("")
    refused(package, "was compiled from another element.h")
