"""`fusegen cache`: what is kept of models, and how it is removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from shared.command import fusegen_here
from shared.tiny_packages import Workshop, kernel

from fusegen.base.errors import UserError
from fusegen.toolchain import model_cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two packages, as a model leaves it."""
    monkeypatch.setenv("FUSEGEN_MODELS", str(tmp_path))
    monkeypatch.setenv("FUSEGEN_NATIVE", "1")
    shop = Workshop(tmp_path, monkeypatch)
    shop.out = tmp_path / "generated"
    shop.build(*(shop.spec(name, kernel(n)) for n, name in enumerate(("first", "second"))))
    return tmp_path


def test_it_lists_and_removes_packages(folder: Path) -> None:
    (folder / "generated" / "mine.txt").write_text("not fusegen's")
    found = model_cache.kept_packages(folder)
    assert {package.name for package in found} == {"first", "second"}
    library = (folder / "generated" / "first" / "_cpu.so").stat().st_size
    assert all(library < package.size < 100 * library for package in found)
    shown = fusegen_here("cache").stdout
    assert all(word in shown for word in ("first", "second", "2 packages in"))
    assert "removed 2 packages" in fusegen_here("cache", "--clear").stdout
    assert not model_cache.kept_packages(folder)
    assert not list((folder / "specs").iterdir())
    left = {path.name for path in (folder / "generated").iterdir()}
    assert left == {".build", "mine.txt"}
    assert "removed 0 packages" in fusegen_here("cache", "--clear").stdout


def test_a_folder_that_is_not_there_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEGEN_MODELS", str(tmp_path / "nothing"))
    assert "0 packages in" in fusegen_here("cache").stdout
    assert "removed 0 packages" in fusegen_here("cache", "--clear").stdout
    assert not (tmp_path / "nothing").exists()


def test_what_was_not_used_for_longest_goes_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {package.name: package.size for package in model_cache.kept_packages(folder)}
    most = f"{max(sizes.values()) + 100}B"
    model_cache.mark_used(folder, ["first", "second", "elsewhere"])
    assert "removed 0 packages" in fusegen_here("cache", "--limit", most).stdout  # both are in use
    marks = {name: folder / "generated" / ".build" / name / "used" for name in sizes}
    long_ago = time.time() - 1000
    os.utime(marks["second"], (long_ago, long_ago - 10))
    os.utime(marks["first"], (long_ago, long_ago))
    assert not model_cache.trim(folder, sum(sizes.values()), print)
    kept = model_cache.trim(folder, max(sizes.values()), print, keep={"second"})
    assert [package.name for package in kept] == ["first"]
    assert "removed 1 package " in fusegen_here("cache", "--limit", "0.0001 MB").stdout
    assert not model_cache.kept_packages(folder)
    monkeypatch.setenv(model_cache.LIMIT, "2 GiB")
    assert model_cache.limit_here() == 2**31
    monkeypatch.setenv(model_cache.LIMIT, "2 apples")
    with pytest.raises(UserError, match="FUSEGEN_MODELS_LIMIT: '2 apples' is no size"):
        model_cache.limit_here()
