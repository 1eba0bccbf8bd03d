"""The commands that the pages show are run as they stand there.

A block without a language is commands, a line each, and the block of text after it what they print. A command
that takes long, or needs what a test has not, says so in its comment, in one of the words of `_NOT_HERE`; of
these, and of pages that other tests run, only the words are checked.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from conftest import ROOT
from shared.command import fusegen_here
from take_walks import WALKS
from test_docs import PAGES, blocks, name

from fusegen.tools.cli.app import app

_NOT_HERE = re.compile(r"\b(seconds|minutes?|hour|GPU|nvcc|network)\b")
#: Pages whose commands are run by test_readme.py, test_shipping.py, test_kernels_hub.py and test_pages.py.
_ELSEWHERE = {ROOT / "README.md", ROOT / "docs" / "shipping.md", *WALKS}
#: A number that differs from machine to machine.
_ERROR = re.compile(r"\d\.\d+e[+-]\d+")
_CLI = typer.main.get_command(app)


def commands(page: Path) -> list[tuple[str, str]]:
    """Return each command of a page with its comment; a line goes on after a backslash."""
    lines = [
        line
        for block in blocks(page, "")
        for line in block.code.replace("\\\n", " ").splitlines()
        if line
    ]
    return [(line.partition(" # ")[0].strip(), line.partition(" # ")[2]) for line in lines]


_OF_PAGES = {
    page: found for page in [*PAGES, ROOT / "examples" / "README.md"] if (found := commands(page))
}
_HERE = {
    page: here
    for page, found in _OF_PAGES.items()
    if page not in _ELSEWHERE
    and (here := [c for c, why in found if not _NOT_HERE.search(why) and not c.startswith("make ")])
}


@pytest.mark.parametrize("page", _OF_PAGES, ids=name)
def test_each_command_is_one(page: Path) -> None:
    """Commands of fusegen parse with all their options, targets of make and scripts are there."""
    for command, _ in _OF_PAGES[page]:
        for own in re.findall(r"(?:^|; do )fusegen ([^|&]+)", command):
            word, *arguments = shlex.split(own)
            found = _CLI.get_command(None, word)  # type: ignore[attr-defined]
            assert found is not None, command
            found.make_context(word, arguments)
        word, *arguments = shlex.split(command)
        if word == "make":
            assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.M), command
        if word in ("python", "bash") and "/" in arguments[0]:
            assert (ROOT / arguments[0]).is_file(), command


def test_most_commands_run() -> None:
    assert {name(page) for page in _HERE} == {
        *("docs/benchmarks.md", "docs/models.md", "docs/pinn.md", "docs/report.md"),
        *("docs/single_file.md", "examples/README.md"),
    }


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a clone is, with the files that pages ask for."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "specs", folder / "specs")
    (folder / "examples").symlink_to(ROOT / "examples")
    shutil.copyfile(ROOT / "README.md", folder / "README.md")
    shutil.copyfile(ROOT / "benchmarks" / "cpu.json", folder / "record.json")
    shutil.copyfile(ROOT / "benchmarks" / "random_cpu.json", folder / "random.json")
    for file, page, language, word in (
        ("model.py", "walks/a_model_made_faster.md", "python", "class Net"),
        ("block.py", "models.md", "python", "class Block"),
        ("my_model.yaml", "single_file.md", "yaml", "chain"),
    ):
        found = (b.code for b in blocks(ROOT / "docs" / page, language) if word in b.code)
        (folder / file).write_text(next(found))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("page", _HERE, ids=name)
def test_the_commands_run(page: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, folder in (("FUSEGEN_MODELS", "models"), ("TORCH_EXTENSIONS_DIR", "extensions")):
        monkeypatch.setenv(variable, str(clone / folder))
    torch._dynamo.reset()
    printed = ""
    for command in _HERE[page]:
        word, *arguments = shlex.split(command)
        if word == "fusegen":  # in this process, which has imported torch
            done = fusegen_here(*arguments, cwd=clone)
        else:
            path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=clone,
                env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed += done.stdout
    if name(page) == "docs/single_file.md":  # the page that shows what its last command prints
        (shown,) = blocks(page, "text")
        assert _ERROR.sub("E", shown.code) in _ERROR.sub("E", printed)
