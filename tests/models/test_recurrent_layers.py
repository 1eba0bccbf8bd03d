"""Models that call nn.LSTM, nn.GRU or nn.RNN: what is around them is fused."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor, nn

import fusegen
from fusegen.models.imported import import_model


class Recurrent(nn.Module):
    """A recurrent layer between two regions, in one function."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.above = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8))
        self.recurrent = kind(8, 3, num_layers=2, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found, state = self.recurrent(self.above(x))
        last = state[0] if isinstance(state, tuple) else state
        return self.norm(found).tanh(), last


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_what_is_around_a_recurrent_layer_is_fused(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Recurrent(kind).double()
    other = copy.deepcopy(model)
    fused = fusegen.fuse(other, torch.randn(2, 2, 5).double(), everything=True, folder=tmp_path)
    report = fusegen.report(fused)
    assert report.fused_ops == report.fusible_ops == 4, report
    for training, batch in ((True, 2), (True, 3), (False, 4)):  # each captures the model anew
        x = torch.randn(batch, 2, 5).double()
        model.train(training)
        fused.train(training)
        hold_seen(seen(fused, (x,), fused), seen(model, (x,), model))
    assert report.fused_ops == report.fusible_ops > 4, report


@pytest.mark.usefixtures("specs_by_torch")
def test_another_compilation_may_call_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Recurrent().double(), torch.randn(2, 2, 5).double()
    fused = fusegen.fuse(copy.deepcopy(model), x, everything=True, folder=tmp_path)
    outer = torch.compile(lambda t: fused(t * 2)[0] + 1, backend="eager")
    torch.testing.assert_close(outer(x), model(x * 2)[0] + 1)


def test_what_is_around_a_recurrent_layer_is_imported() -> None:
    model = Recurrent()
    given = inspect.signature(model.forward).bind(torch.randn(2, 2, 5))
    specs, _ = import_model(model, given, title="m.py:Model")
    assert [spec.ops for spec in specs] == [("gelu", "layer_norm"), ("layer_norm", "tanh")]
