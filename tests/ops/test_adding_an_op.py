"""docs/adding_an_op.md: its files are written and run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT
from shared.command import fusegen

PAGE = (ROOT / "docs" / "adding_an_op.md").read_text()

#: The value and the gradients by torch, from the page's formula in words, in float64.
TRUTH = """
from pathlib import Path

import own_ops
import torch

import fusegen
from fusegen.toolchain import pipeline
from fusegen.tools.check.verify import Comparison, gradcheck, make_case

def truth(x, operands):
    x = torch.nn.functional.gelu(x)
    below = x - (torch.softmax(x / 0.5, -1) * x).sum(-1, keepdim=True)
    scaled = below * torch.rsqrt(below.square().mean(-1, keepdim=True) + 1e-5)
    return scaled * operands["weight"]

peaked, chain = fusegen.load("peaked"), pipeline.derive(Path("peaked.yaml"))

def ours(x, operands):
    return peaked.apply(x, **operands)

for seed in range(8):
    case = make_case(chain, (7, 257), training=False, seed=seed)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        comparison = Comparison(chain, case, dtype)
        found = comparison.results(ours, dtype)
        wanted = comparison.results(truth, torch.float64)
        for result in zip(comparison.names, found, wanted, comparison.spread(), strict=True):
            error = comparison.error(*result)
            print(dtype, error)
            assert error.within, (dtype, str(error))
gradcheck(peaked, chain, training=False)
"""

#: Whether a build would have nothing to do.
FRESH = """
from pathlib import Path
from fusegen.toolchain.freshness import is_fresh

print(is_fresh(Path("peaked.yaml"), Path("generated/peaked"), Path("generated/.build/peaked/rendered.json")))
"""


def run(folder: Path, script: str) -> str:
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search, "FUSEGEN_NATIVE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_op_of_the_page_is_right(tmp_path: Path) -> None:
    files = re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in files] == [
        *("own_ops.py", "peaked.yaml", "build_peaked.py"),
        "own_atoms.py",  # atoms/test_new_atom.py runs it
    ]
    for name, text in files:
        (tmp_path / name).write_text(text)
    (tmp_path / "truth.py").write_text(TRUTH)
    assert "[64, 1000]" in run(tmp_path, "build_peaked.py")
    run(tmp_path, "truth.py")

    (tmp_path / "fresh.py").write_text(FRESH)
    assert run(tmp_path, "fresh.py").strip() == "True"
    declared = (tmp_path / "own_ops.py").read_text()
    (tmp_path / "own_ops.py").write_text(declared.replace("eps: float = 1e-5", "eps: float = 0.25"))
    assert run(tmp_path, "fresh.py").strip() == "False"


def test_the_command_line_takes_the_file(tmp_path: Path) -> None:
    files = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
    for name in ("own_ops.py", "peaked.yaml"):
        (tmp_path / name).write_text(files[name])
    refused = fusegen("show", "peaked", cwd=tmp_path)
    assert refused.returncode == 2
    assert "unknown op 'peak_norm'" in refused.stderr
    shown = fusegen("--declare", "own_ops.py", "show", "peaked", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "peak_norm_share" in shown.stdout
    assert (
        fusegen("show", "peaked", cwd=tmp_path, FUSEGEN_DECLARE="own_ops.py").stdout == shown.stdout
    )
    missing = fusegen("--declare", "other.py", "ops", cwd=tmp_path)
    assert missing.returncode == 2
    assert "no such Python file" in missing.stderr
