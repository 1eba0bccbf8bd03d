"""The walks of docs/walks are what `tests/take_walks.py` can do word for word; here no command runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from take_walks import ROOT, WALKS, steps, take

from fusegen.chain import derive
from fusegen.spec import parse
from fusegen.tools.cli.app import app

_COMMANDS = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}


@pytest.mark.parametrize("page", WALKS, ids=lambda page: page.stem)
def test_each_step_is_a_file_that_is_used_or_a_command_that_exists(page: Path) -> None:
    found = steps(page)
    commands = [step.text for step in found if not step.file]
    assert len(commands) > 3
    for step in found:
        if step.file.endswith(".py"):
            compile(step.text, step.file, "exec")
        elif step.file.endswith(".yaml"):
            assert derive(parse(step.text, Path(step.file).stem)).modes
            assert yaml.safe_load(step.text)["chain"]
        if step.file:
            assert any(Path(step.file).stem in other.text for other in found)
    for command in commands:
        word, *rest = command.split()
        assert word in ("fusegen", "python", "colleague/bin/python"), command
        assert word != "fusegen" or rest[0] in _COMMANDS, command


def test_the_pages_of_walks_say_how_long_they_take() -> None:
    listed = (ROOT / "docs" / "walks" / "README.md").read_text()
    for page in WALKS:
        (row,) = (line for line in listed.splitlines() if f"({page.name})" in line)
        seconds = row.split("|")[3].strip().removesuffix(" s")
        assert f"takes {seconds} seconds" in " ".join(page.read_text().split())


def test_a_walk_is_done_in_order_and_stops_at_what_fails(tmp_path: Path) -> None:
    page, folder = tmp_path / "walk.md", tmp_path / "folder"
    folder.mkdir()
    page.write_text(
        "Write `a.py`:\n\n```python\nprint(1)\n```\n\n```\ncp a.py b.py\ntest -s b.py\n```\n```text\n1\n```\n"
    )
    assert [(step.file, step.text) for step in steps(page)] == [
        ("a.py", "print(1)\n"),
        ("", "cp a.py b.py"),
        ("", "test -s b.py"),
    ]
    assert take(page, folder) < 5
    page.write_text("```\nfalse\n```\n")
    with pytest.raises(subprocess.CalledProcessError):
        take(page, folder)
    page.write_text("```python\nprint(1)\n```\n")
    with pytest.raises(ValueError, match="without the name of its file"):
        steps(page)
