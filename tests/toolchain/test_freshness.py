"""When a package is derived again: where anything that it was rendered from has changed, and only there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from shared.tiny_packages import Workshop, kernel, render

from fusegen.base.files import write_if_different
from fusegen.toolchain import builder, freshness, pipeline
from fusegen.toolchain.rendered import RenderedPackage

FILES = {"kernel.cpp": "a kernel", "binding.cpp": "a binding"}

#: Prints whether a build would have nothing to do, by the fusegen that lies in this folder.
FRESH = """
import sys
from pathlib import Path
from fusegen.base import paths
from fusegen.toolchain import freshness
assert paths.package().parent == Path.cwd(), paths.package()
spec, package, record = Path("a.yaml"), Path("out/a"), Path("out/.build/a/rendered.json")
if sys.argv[1:]:
    freshness.write_record(freshness.inputs_of(spec), {files!r}, record)
print(freshness.is_fresh(spec, package, record))
assert not {{"sympy", "jinja2", "torch"}} & {{*sys.modules}}
"""


class Place:
    """A spec, its package and its record."""

    def __init__(self, folder: Path) -> None:
        self.spec, self.package = folder / "a.yaml", folder / "out" / "a"
        self.record = folder / "out" / ".build" / "a" / "rendered.json"
        self.op = folder / "own_op.py"
        self.spec.write_text("chain: [relu]\n")
        self.op.write_text("an op")
        for name, text in FILES.items():
            write_if_different(self.package / name, text)
        freshness.write_record(freshness.inputs_of(self.spec), FILES, self.record, [self.op])

    @property
    def fresh(self) -> bool:
        return freshness.is_fresh(self.spec, self.package, self.record)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.spec.write_text("chain: [tanh]\n"),
        lambda p: p.spec.with_suffix(".tuned.json").write_text("{}"),
        lambda p: p.op.write_text("another op"),
        lambda p: p.op.unlink(),
        lambda p: (p.package / "binding.cpp").write_text("a binding "),
        lambda p: (p.package / "binding.cpp").unlink(),
        lambda p: shutil.rmtree(p.package),
        lambda p: shutil.rmtree(p.record.parent),
    ],
    ids=["spec", "tuned", "op", "no_op", "file", "no_file", "no_package", "no_record"],
)
def test_any_change_is_seen(change: Callable[[Place], object], place: Place) -> None:
    assert place.fresh
    change(place)
    assert not place.fresh


def test_times_are_no_changes(place: Place) -> None:
    for path in (place.spec, place.op, *place.package.iterdir()):
        os.utime(path, (0, 0))
    assert place.fresh


def test_tuned_values_that_are_gone_are_a_change(place: Place) -> None:
    tuned = place.spec.with_suffix(".tuned.json")
    tuned.write_text("{}")
    freshness.write_record(freshness.inputs_of(place.spec), FILES, place.record)
    assert place.fresh
    tuned.unlink()
    assert not place.fresh


def test_a_spec_of_another_name_is_another(place: Place) -> None:
    """The sources name the file, and a.yml is the package `a` too."""
    other = place.spec.rename(place.spec.with_suffix(".yml"))
    assert not freshness.is_fresh(other, place.package, place.record)


def test_another_version_of_a_library_is_a_change(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = freshness._versions()
    assert all(versions[name] for name in ("python", "sympy", "jinja2", "clang-format"))
    for name in versions:
        monkeypatch.setattr(freshness, "_versions", lambda n=name: {**versions, n: "0"})
        assert not place.fresh, name


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "{}", "[]", "null", '{"inputs": "0"}', "[" * 100_000, "\udcff"),
        '{"inputs": INPUTS}',
        '{"inputs": INPUTS, "files": {}, "sources": {}}',
        '{"inputs": INPUTS, "files": [1], "sources": {}}',
        '{"inputs": INPUTS, "files": {".": "0"}, "sources": {}}',
    ],
)
def test_a_damaged_record_is_none(text: str, place: Place) -> None:
    inputs = json.dumps(freshness.inputs_of(place.spec))
    written = text.replace("INPUTS", inputs)
    place.record.write_bytes(written.encode(errors="surrogateescape"))
    assert not place.fresh


def test_every_source_and_template_of_fusegen_counts(tmp_path: Path) -> None:
    """Their places too: what is moved is a change."""
    for folder in ("fusegen", "templates"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / "a.yaml").write_text("chain: [relu]\n")
    for name, text in FILES.items():
        write_if_different(tmp_path / "out" / "a" / name, text)

    def fresh(*options: str) -> bool:
        done = subprocess.run(
            [sys.executable, "-c", FRESH.format(files=FILES), *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip() == "True"

    assert fresh("record")
    for changed in (
        tmp_path / "fusegen" / "lower" / "passes" / "__init__.py",
        tmp_path / "fusegen" / "ops" / "gates.py",
        tmp_path / "templates" / "cpu" / "kernel.cpp.j2",
        tmp_path / "templates" / "include" / "fusegen" / "dtype.h",
    ):
        before = changed.read_text()
        changed.write_text(before + "\n")
        assert not fresh(), changed
        changed.write_text(before)
        assert fresh(), changed
    moved = (tmp_path / "templates" / "form.h.j2").rename(
        tmp_path / "templates" / "cpu" / "form.h.j2"
    )
    assert not fresh(), moved


def test_a_spec_that_changes_while_it_is_derived_is_derived_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Workshop(tmp_path, monkeypatch)

    def slow(path: Path) -> RenderedPackage:
        package = render(path)
        shop.spec("a", kernel(2))
        return package

    monkeypatch.setattr(pipeline, "render_package", slow)
    a = shop.spec("a", kernel(1))
    assert shop.build(a)["a"].rendered
    monkeypatch.setattr(pipeline, "render_package", render)
    assert shop.build(a)["a"].rendered
    assert (shop.out / "a" / "kernel.cpp").read_text() == kernel(2)
    assert not shop.build(a)["a"].rendered


def test_check_trusts_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It renders each spec, whatever a record says: it is what CI relies on."""
    shop = Workshop(tmp_path, monkeypatch)
    a = shop.spec("a", kernel(1))
    shop.build(a)

    def changed(path: Path) -> RenderedPackage:
        package = render(path)
        return RenderedPackage(package.name, {**package.files, "kernel.cpp": kernel(2)})

    monkeypatch.setattr(pipeline, "render_package", changed)
    assert not shop.build(a)["a"].rendered
    (difference,) = builder.check([a], out=shop.out)
    assert f"+{kernel(2).strip()}" in difference.splitlines()
