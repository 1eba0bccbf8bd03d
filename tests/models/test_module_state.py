"""`fuse` calls a model once; what the call changes in it is put back."""

from __future__ import annotations

import collections
import copy
import random
import types
from pathlib import Path
from typing import Any

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


class Cache:
    """An object of a class that is no module."""

    def __init__(self) -> None:
        self.count, self.keys, self.inner = 0, list[Tensor](), types.SimpleNamespace(last=None)


class Hoarding(nn.Module):
    """Keeps numbers in what is neither a tensor nor a list of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.cache = nn.Linear(4, 4), Cache()
        self.recent: collections.deque[int] = collections.deque([7], maxlen=2)
        self.counts: dict[str, int] = collections.defaultdict(int)
        self.order = collections.OrderedDict(a=1)
        self.nested: tuple[Any, ...] = ({"inner": [1]},)
        self.generator, self.own = torch.Generator().manual_seed(1), random.Random(2)
        self.array, self.bytes = torch.zeros(3).numpy(), bytearray(b"abc")
        self.hidden = [nn.BatchNorm1d(4)]

    def forward(self, x: Tensor) -> Tensor:
        self.recent.append(len(self.recent))
        self.counts["calls"] += 1
        self.order["b"] = 2
        self.nested[0]["inner"].append(2)
        self.cache.count += 1
        self.cache.keys.append(x)
        self.cache.inner.last = x
        self.array += 1
        self.bytes[0] = 0
        y = self.hidden[0](self.linear(x)) + torch.rand(4, generator=self.generator)
        return torch.tanh(y * self.own.random()) * random.random()


def test_what_a_model_hoards_is_put_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    random.seed(0)
    model, x = Hoarding(), torch.randn(3, 4)
    fused = fusegen.fuse(model, x, everything=True, folder=tmp_path)
    numbers, calls = random.getstate(), model.cache
    assert (list(model.recent), dict(model.counts), dict(model.order)) == ([7], {}, {"a": 1})
    assert model.nested == ({"inner": [1]},)
    assert (calls.count, calls.keys, calls.inner.last) == (0, [], None)
    assert (model.array.tolist(), bytes(model.bytes)) == ([0.0] * 3, b"abc")
    assert model.hidden[0].num_batches_tracked == 0
    values = []
    for one in (Hoarding(), fused):  # the same numbers as of a model that was never called
        one.load_state_dict(model.state_dict())
        random.seed(0)
        values.append(one(x))
    torch.testing.assert_close(*values)
    random.seed(0)
    assert random.getstate() == numbers


class Following(nn.Module):
    """Has weights that follow others, and bounds its own, at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
        self.scale = nn.Parameter(torch.full((4,), 5.0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.scale.clamp_(max=2.0)
            for own, other in zip(self.second.parameters(), self.first.parameters(), strict=True):
                own.data = own.data * 0.9 + other.data * 0.1
        return torch.tanh(self.first(x) * self.scale) + self.second(x)


def test_weights_that_a_call_changes_are_put_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Following(), torch.randn(3, 4)
    eager = copy.deepcopy(model)
    fused = fusegen.fuse(model, x, everything=True, folder=tmp_path)
    for found, wanted in zip(model.parameters(), eager.parameters(), strict=True):
        assert torch.equal(found, wanted)
    for _ in range(2):
        torch.testing.assert_close(fused(x), eager(x))
    torch.testing.assert_close(fused.state_dict(), eager.state_dict())


def test_a_function_leaves_tensors_and_random_numbers_as_they_are(tmp_path: Path) -> None:
    total = torch.zeros(4)

    def form(x: Tensor) -> Tensor:
        total.add_(x[0])
        return torch.tanh(x * torch.rand(4)) * 2

    torch.manual_seed(0)
    fusegen.fuse(form, torch.ones(3, 4), everything=True, folder=tmp_path)
    assert not total.any()
    assert torch.initial_seed() == 0
    found = torch.rand(1)
    torch.manual_seed(0)
    assert found == torch.rand(1)


def test_a_buffer_that_is_written_to_has_no_gradient_afterwards(tmp_path: Path) -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("keys", torch.zeros(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.keys, Tensor)
            self.keys[:2] = self.linear(x)
            return torch.tanh(self.keys) * 2

    model = Cached()
    fusegen.fuse(model, torch.ones(2, 4), everything=True, folder=tmp_path)
    assert isinstance(model.keys, Tensor)
    assert not model.keys.requires_grad
    assert not model.keys.any()
