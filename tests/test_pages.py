"""What the pages of docs/ show is run as it stands there; the pages in `RUN` have tests of their own."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from shared.command import python_in
from take_walks import WALKS, take
from test_docs import PAGES, RUN, Block, blocks, name

from fusegen.toolchain import pipeline

#: Each spec of a page. What `adding_an_op.md` declares is known in its own test alone.
SPECS = [
    pytest.param(block, id=f"{name(page)}:{block.line}")
    for page in PAGES
    if page not in RUN
    for language in ("yaml", "yml")
    for block in blocks(page, language)
    if re.search(r"^chain:", block.code, re.MULTILINE)
]
#: The walk that makes a wheel is done by tests/tools/test_shipping.py, which installs nothing from elsewhere.
DONE = [page for page in WALKS if page.stem != "an_activation_in_a_wheel"]


def code(page: str, word: str) -> str:
    """Return the first block of Python in a page of docs/ that contains a word."""
    return next(b.code for b in blocks(ROOT / "docs" / page, "python") if word in b.code)


def run(folder: Path, *command: str) -> str:
    """Run Python in a folder, with packages and models of its own; return what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return python_in(folder, *command, FUSEGEN_MODELS=str(folder / "models"), PATH=path)


@pytest.mark.parametrize("block", SPECS)
def test_each_spec_is_right(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "page.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(block.code) | {"order": 0}, sort_keys=False))
    assert pipeline.derive_all(path).fused


@pytest.mark.slow
def test_a_model_is_fused_and_loaded(tmp_path: Path) -> None:
    script = code("models.md", "print(fusegen.report") + code("models.md", "load_fused")
    script += "assert torch.allclose(loaded(x), model(x), atol=1e-5)\n"
    (tmp_path / "fuse.py").write_text(script)
    assert "3 of 3 ops fused" in run(tmp_path, "fuse.py")


@pytest.mark.slow
def test_a_kernel_of_a_model_is_owned(tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(code("models.md", "class Block"))
    imported = "block.py:Block(dim=512, heads=4)"
    inputs = ("--inputs", "4x128x512", "--out", "specs")
    run(tmp_path, "-m", "fusegen", "import", imported, *inputs)
    run(tmp_path, "-m", "fusegen", "build", "specs", "--backend", "cpu")
    script = code("models.md", "class FusedBlock") + (
        "import torch\n"
        "x, model, fused = torch.randn(4, 128, 512), Block(512, 4), FusedBlock(512, 4)\n"
        "fused.load_state_dict(model.state_dict())\n"
        "assert torch.allclose(fused(x), model(x), atol=1e-5)\n"
    )
    (tmp_path / "own.py").write_text(script)
    run(tmp_path, "own.py")


@pytest.mark.slow
def test_a_first_package_is_called(tmp_path: Path) -> None:
    first = next(b.code for b in blocks(ROOT / "docs" / "specs.md", "yaml"))
    for spec in ("my_gelu", "my_model"):
        (tmp_path / f"{spec}.yaml").write_text(first)
    run(tmp_path, "-m", "fusegen", "build", "my_gelu.yaml", "--backend", "cpu")
    (tmp_path / "call.py").write_text(code("specs.md", "import Module, apply"))
    run(tmp_path, "call.py")
    (tmp_path / "build.py").write_text(code("api/README.md", "fusegen.load"))
    run(tmp_path, "build.py")


@pytest.mark.slow
@pytest.mark.parametrize("page", DONE, ids=lambda page: page.stem)
def test_a_walk_is_done(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", os.pathsep.join([str(python), os.environ["PATH"]]))
    monkeypatch.setenv("FUSEGEN_MODELS", str(tmp_path / "models"))
    folder = tmp_path / "walk"
    folder.mkdir()
    take(page, folder)
