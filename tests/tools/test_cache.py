"""`fusegen cache`: what is kept of models, and how it is removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.command import fusegen_here
from shared.tiny_packages import Workshop, kernel

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
