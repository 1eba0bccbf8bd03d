"""`fusegen bench model.py:Class`: passes, subjects, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import by_torch
from shared.command import fusegen_here
from torch import fx, nn

from fusegen.base.errors import UserError
from fusegen.models import FusegenBackend, backend
from fusegen.tools.against_eager.bench import PASSES, bench
from fusegen.tools.against_eager.original import Original
from fusegen.tools.bench.timing import Deadline


@pytest.fixture(autouse=True)
def _by_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(backend, "packages_of", by_torch.packages)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def refusing(module: fx.GraphModule, inputs: Any) -> Any:
    del module, inputs
    raise RuntimeError("no compiler")


def test_all_passes_of_all_subjects_and_the_weights_stay() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.BatchNorm1d(8))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    said: list[str] = []
    subjects: dict[str, Any] = {
        "eager": None,
        "fusegen": FusegenBackend(everything=True),
        "refusing": refusing,
    }
    given = Original("mlp", model, "4x8", "cpu")
    found = bench(given, subjects, torch.float32, said.append, rounds=1)
    assert [timed.name for timed in found] == list(PASSES)
    assert all(timed.ms.keys() == {"eager", "fusegen"} and not timed.peak for timed in found)
    assert any("refusing fails, its times are left out: " in line for line in said)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match="mlp fails: RuntimeError"):
        bench(Original("mlp", model, "4x9", "cpu"), subjects, torch.float32, said.append)


def test_a_deadline_leaves_out_what_may_wait() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.BatchNorm1d(8))
    subjects: dict[str, Any] = {
        "eager": None,
        "refusing": refusing,
        "fusegen": FusegenBackend(everything=True),
        "with the rest": FusegenBackend(everything=True, rest="inductor"),
    }
    deadline = Deadline(0)
    given = Original("mlp", model, "4x8", "cpu")
    (found,) = bench(given, subjects, torch.float32, lambda _: None, 3, deadline)
    assert found.name == "forward" and [*found.ms] == ["eager", "fusegen"]
    assert deadline.left == [
        "float32: forward of refusing",
        "float32: forward of with the rest",
        "float32: forward + backward",
        "float32: training step (AdamW)",
    ]


def test_the_command_prints_times_and_the_report(tmp_path: Path) -> None:
    (tmp_path / "pairs.py").write_text("import torch\ndef pair(x, y): return torch.tanh(x) * y\n")
    command = ("bench", "pairs.py:pair", "--inputs", "4x8,4x8", "--no-compile", "--rounds", "1")
    done = fusegen_here(*command, "--device", "cpu", "--everything", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "forward + backward" in done.stdout and "training" not in done.stdout
    assert "tanh mul: [4, 8]" in done.stdout and "left out" not in done.stdout
    torch._dynamo.reset()
    done = fusegen_here(*command, "--seconds", "0", "--device", "cpu", "--everything", cwd=tmp_path)
    assert "left out after 0 s, which --seconds sets: float32: forward + backward" in done.stdout
    torch._dynamo.reset()
    done = fusegen_here(*command, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing of pairs.py:pair is fused" in done.stderr
    done = fusegen_here(*command, "--shape", "8x8", cwd=tmp_path)
    assert done.returncode == 2 and "--shape is for specs" in done.stderr
    done = fusegen_here("bench", "--everything", cwd=tmp_path)
    assert done.returncode == 2 and "--everything is for a model" in done.stderr
