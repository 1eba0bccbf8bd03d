"""docs/adding_an_op.md: its files are written and run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PAGE = (ROOT / "docs" / "adding_an_op.md").read_text()

#: The value and the gradients by torch, from the page's formula in words, in float64.
TRUTH = """
import torch
import fusegen
from fusegen.verify import BOUND_ULP, ulp_error

def truth(x, weight):
    x = torch.nn.functional.gelu(x)
    below = x - (torch.softmax(x / 0.5, -1) * x).sum(-1, keepdim=True)
    return below * torch.rsqrt(below.square().mean(-1, keepdim=True) + 1e-5) * weight

peaked = fusegen.load("peaked")
generator = torch.Generator().manual_seed(0)
exact = [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((7, 257), (257,), (7, 257))]
for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
    given = [t.to(dtype) for t in exact]
    results = []
    for function, wanted in ((peaked.apply, dtype), (truth, torch.float64)):
        *leaves, cotangent = [t.to(wanted).requires_grad_() for t in given]
        value = function(*leaves)
        results.append([value, *torch.autograd.grad(value, leaves, cotangent)])
    for name, got, want in zip(("output", "grad_x", "grad_weight"), *results):
        error = ulp_error(got.detach(), want.detach())
        print(dtype, name, error)
        assert error <= BOUND_ULP[dtype], (dtype, name, error)
leaves = [t[..., :5].clone().requires_grad_() for t in exact[:2]]
torch.autograd.gradcheck(peaked.apply, leaves)
torch.autograd.gradgradcheck(peaked.apply, leaves)
"""

#: Whether a build would have nothing to do.
FRESH = """
from pathlib import Path
from fusegen.freshness import is_fresh

print(is_fresh(Path("peaked.yaml"), Path("generated/peaked"), Path("generated/.build/peaked/stamp.json")))
"""


def run(folder: Path, script: str) -> str:
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_op_of_the_page_is_right(tmp_path: Path) -> None:
    files = re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in files] == ["own_ops.py", "peaked.yaml", "build_peaked.py"]
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
