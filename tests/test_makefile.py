"""A link to another checkout's environment: `make` uses it, and installs nothing into it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make here")


@pytest.fixture
def worktree(tmp_path: Path) -> Path:
    """A checkout that is newer than the environment of another, to which its `.venv` is a link."""
    other, here = tmp_path / "other", tmp_path / "here"
    (other / ".venv").mkdir(parents=True)
    here.mkdir()
    (other / ".venv" / "installed").touch()
    os.utime(other / ".venv" / "installed", (0, 0))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, here)
    (here / ".venv").symlink_to(other / ".venv")
    return here


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "PYTHONPATH"))}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=own, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("target", ["build", "test", "quick", "check", "prove", "walks", "format"])
def test_nothing_is_installed_into_another_checkouts_environment(
    worktree: Path, target: str
) -> None:
    said = make(worktree, "--dry-run", target)
    assert said.returncode == 0, said.stderr
    assert "pip" not in said.stdout
    assert said.stdout.count("a link to another checkout's environment") == 1


def test_python_imports_this_checkout(worktree: Path) -> None:
    with (worktree / "Makefile").open("a") as file:
        file.write("\nimported:\n\t@echo PYTHONPATH=$$PYTHONPATH\n")
    assert f"PYTHONPATH={worktree}\n" in make(worktree, "imported").stdout
    assert f"PYTHONPATH=tests:{worktree} " in make(worktree, "--dry-run", "prove-specs").stdout


def test_what_the_environment_lacks_is_said(worktree: Path) -> None:
    said = make(worktree, "docs")
    assert said.returncode
    assert "run make in that checkout first: there is no .venv/installed-docs" in said.stderr


def test_an_environment_of_its_own_is_installed_into(worktree: Path) -> None:
    (worktree / ".venv").unlink()
    said = make(worktree, "--dry-run", "check").stdout
    assert "pip install" in said
    assert "is a link" not in said
