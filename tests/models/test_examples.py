"""The models of examples/: as exact as eager in training, and fused. torch computes the specs of most."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from shared.threads import threads
from torch import Tensor, nn

import fusegen
from fusegen.models.plan import ALONE, APART
from fusegen.tools.against_eager.exact_casts import ExactCasts

sys.path.insert(0, str(ROOT / "examples"))
import write_table
from training import Example, main, train

pytestmark = pytest.mark.slow

EXAMPLES = {name: (file, example) for file, name, example in write_table.examples()}
STEPS = 20


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors are small: more threads take longer."""
    with threads(1):
        yield


class Run:
    """Losses of some steps of training, and the gradients of the first."""

    def __init__(self, example: Example, model: nn.Module, inputs: list[Tensor]) -> None:
        torch.manual_seed(0)
        example.loss(model, *inputs).backward()
        self.gradients = [p.grad.double() for p in model.parameters() if p.grad is not None]
        self.losses = torch.tensor(train(example, model, inputs, STEPS), dtype=torch.float64)


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains_as_eager(name: str) -> None:
    """Without dropout, of which a fused model draws other random numbers."""
    file, example = EXAMPLES[name]
    model, inputs = example.start()
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    fused = example.fuse(copy.deepcopy(model), inputs)
    held(file, name, fusegen.report(fused))
    if drops:
        for module in drops:
            module.p = 0.0
        torch._dynamo.reset()
        fused = example.fuse(copy.deepcopy(model), inputs)

    found = Run(example, fused, inputs)
    eager = Run(example, copy.deepcopy(model), inputs)
    with ExactCasts(), torch.autograd.set_multithreading_enabled(False):
        truth = Run(example, copy.deepcopy(model).double(), [t.double() for t in inputs])

    error, usual = ((run.losses - truth.losses).abs().max() for run in (found, eager))
    assert error <= 4 * usual + 2e-7 * truth.losses.max()
    assert truth.losses[-1] < truth.losses[0]
    # A gradient that is zero but for rounding, as of a bias before a batch norm, says nothing by itself.
    scale = max(float(t.abs().max()) for t in truth.gradients)
    tiny = sum(float(t.abs().max()) < 1e-5 * scale for t in truth.gradients)
    assert tiny < len(truth.gradients) / 2
    for got, other, true in zip(found.gradients, eager.gradients, truth.gradients, strict=True):
        error, usual = ((t - true).abs().max() for t in (got, other))
        assert error <= 4 * usual + 1e-7 * scale


def held(file: str, name: str, report: fusegen.models.Report) -> None:
    """Compare a report with the table of the examples; nothing is refused without being in it."""
    assert write_table.row(file, name, report) in write_table.README.read_text()
    assert not [region.reason for region in report.regions if region.reason]
    assert report.fused_ops >= 0.9 * report.fusible_ops, report
    left = dict.fromkeys((APART, ALONE), 0)
    for (_, reason), count in report.left.items():
        left[reason] = left.get(reason, 0) + count
    assert (left[APART], left[ALONE]) == (report.apart, report.alone), report


@pytest.mark.parametrize("name", ["ViT", "LSTM"])
def test_an_example_runs(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a user runs it, with packages that are compiled."""
    monkeypatch.setenv("FUSEGEN_MODELS", str(tmp_path))
    file, example = EXAMPLES[name]
    monkeypatch.setattr(sys, "argv", [f"{file}.py", name])
    torch._dynamo.reset()
    main({name: example})
    printed = capsys.readouterr().out
    first, last = printed.splitlines()[:2]
    start = float(first.split("from ")[1])
    eager, fused = (float(part.split()[-1]) for part in last.split(", "))
    assert fused == pytest.approx(eager, abs=2e-6)
    assert fused < start
    assert "regions fused" in printed
    assert list((tmp_path / "generated").glob("*/*_cpu.so"))
