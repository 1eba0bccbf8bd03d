"""`fuse` calls a model once; what the call changes in it is put back."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fusegen
from fusegen.models.module_state import ModuleState

pytestmark = pytest.mark.usefixtures("specs_by_torch")


class Remembering(nn.Module):
    """Keeps what it computed in all ways in which models do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.hidden = torch.zeros(2, 4)
        self.count, self.last = 0, None
        self.seen: list[Tensor] = []
        self.by_name = {"total": torch.zeros(4)}
        self.register_buffer("average", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.hidden = torch.tanh(self.norm(self.linear(x) + self.hidden))
        self.count += 1
        self.last = self.new = self.hidden.detach()
        self.seen.append(self.last)
        self.by_name["total"] += self.last.sum(0)
        self.by_name["last"] = self.last
        self.average.lerp_(self.last.mean(0), 0.1)
        return self.hidden


def test_a_model_keeps_its_state(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Remembering(), torch.randn(2, 4)
    eager, hidden, total = copy.deepcopy(model), model.hidden, model.by_name["total"]
    fused = fusegen.fuse(model, x, everything=True, folder=tmp_path)
    for one in (model, fused):
        assert one.hidden is hidden
        assert (one.count, one.last, one.seen) == (0, None, [])
        assert not hasattr(one, "new")
        assert list(one.by_name) == ["total"]
        assert one.by_name["total"] is total
        assert not total.any()
        assert not one.average.any()

    for _ in range(2):
        torch.testing.assert_close(fused(x), eager(x))
    assert fused.count == len(fused.seen) == 2
    torch.testing.assert_close(fused.by_name, eager.by_name)
    fused.hidden.sum().backward()  # the state is what the calls made, not the example's
    eager.hidden.sum().backward()
    torch.testing.assert_close(fused.linear.weight.grad, eager.linear.weight.grad)


def test_a_state_that_did_not_change_is_not_touched() -> None:
    """A backward pass refuses a tensor that was written to, be it with its own values."""
    model = Remembering()
    state, version = ModuleState(model), model.hidden._version
    state.put_back()
    assert model.hidden._version == model.average._version == version


def test_a_lazy_module_is_what_its_first_call_made_of_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Tanh())
    x = torch.randn(8, 3)
    fused = fusegen.fuse(model, x, everything=True, folder=tmp_path)
    assert [type(m) for m in model] == [nn.Linear, nn.BatchNorm1d, nn.Tanh]
    torch.testing.assert_close(fused(x), copy.deepcopy(model)(x))
