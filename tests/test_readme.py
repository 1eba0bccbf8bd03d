"""What the README shows is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

from conftest import ROOT
from shared.command import python_in

from fusegen.ops import registry

README = (ROOT / "README.md").read_text()


BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def block(language: str, word: str = "") -> str:
    """Return the first block in a language that contains a word."""
    return next(text for found, text in BLOCKS if found == language and word in text)


def test_it_installs_with_one_command_and_then_fuses_a_model() -> None:
    assert BLOCKS[0] == ("", "pip install .\n")
    language, text = BLOCKS[1]
    assert language == "python" and "fusegen.fuse(model" in text


def test_the_example_builds_and_trains(tmp_path: Path) -> None:
    (tmp_path / "my_model.yaml").write_text(block("yaml"))
    (tmp_path / "train.py").write_text(block("python", "from generated") + "print(loss.item())\n")
    # For one instruction set: a third of the time.
    native = {"FUSEGEN_NATIVE": "1"}
    python_in(tmp_path, "-m", "fusegen", "build", "my_model.yaml", "--backend", "cpu", **native)
    assert 0 < float(python_in(tmp_path, "train.py", **native)) < 1


def test_the_number_of_ops_is_true() -> None:
    assert f"{len(registry())} ops" in README


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
