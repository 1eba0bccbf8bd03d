"""Checkpoints inside a model, which torch captures as graphs of their own."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from fusegen.models import FusegenBackend
from fusegen.models.checkpoints import write_checkpoints
from fusegen.models.effects import effects_of
from fusegen.models.imported import import_model

pytestmark = [pytest.mark.usefixtures("specs_by_torch"), pytest.mark.slow]

OPTIONS: list[dict[str, Any]] = [
    {"use_reentrant": False},
    {"use_reentrant": True},
    {"use_reentrant": False, "preserve_rng_state": True, "determinism_check": "none"},
    {
        "use_reentrant": False,
        "context_fn": functools.partial(
            create_selective_checkpoint_contexts, [torch.ops.aten.addmm.default]
        ),
    },
]


class Block(nn.Module):
    """A block that may draw random numbers."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.up, self.norm, self.drop = nn.Linear(6, 6), nn.LayerNorm(6), nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.up(self.drop(x)).sin())) * 3


class Checkpointed(nn.Module):
    """Blocks that are computed again in the backward pass."""

    def __init__(self, blocks: nn.Module, **options: Any) -> None:
        super().__init__()
        self.blocks, self.options = blocks, options

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(checkpoint(self.blocks, x, **self.options)) * 2


def used(model: nn.Module) -> tuple[nn.Module, FusegenBackend]:
    """Return a copy of a model that is fused."""
    backend = FusegenBackend(everything=True)
    fused = copy.deepcopy(model)
    fused.compile(backend=backend)
    return fused, backend


@pytest.mark.parametrize("options", OPTIONS)
def test_a_checkpoint_draws_the_same_numbers_again(options: dict[str, Any]) -> None:
    """The gradient is that of the numbers that the forward pass drew: the slope along a direction."""
    torch.manual_seed(0)
    x, direction = torch.randn(2, 5, 6, dtype=torch.float64).unbind()
    fused, _ = used(Checkpointed(Block(0.5).double(), **options))

    def of(given: Tensor) -> Tensor:
        torch.manual_seed(1)
        return fused(given).sum()

    given = x.clone().requires_grad_()
    of(given).backward()
    assert given.grad is not None
    step = 1e-6 * direction
    slope = (of(x + step) - of(x - step)) / 2e-6
    torch.testing.assert_close((given.grad * direction).sum(), slope.detach(), rtol=1e-6, atol=0)


def test_what_is_in_a_checkpoint_is_fused() -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(Block(0.0), Checkpointed(Block(0.0), use_reentrant=False))
    model = Checkpointed(blocks, use_reentrant=False).double()
    fused, backend = used(model)
    x = torch.randn(5, 6, dtype=torch.float64)
    hold_seen(seen(fused, (x,), fused), seen(model, (x,), model))
    ops = sorted(len(region.ops) for region in backend.report.fused)
    assert ops == [2, 2, 4, 4]  # sigmoid mul, twice; sin layer_norm tanh mul, twice
    assert "checkpoint x 2: a graph of its own" in str(backend.report)


def test_what_is_in_a_checkpoint_has_a_spec() -> None:
    model = Checkpointed(Block(0.0), use_reentrant=False)
    inputs = inspect.signature(model.forward).bind(torch.randn(5, 6))
    specs, _ = import_model(model, inputs, title="model")
    assert [spec.places for spec in specs] == [("blocks",), ("",)]
    assert "norm_weight: col       # blocks.norm.weight" in specs[0].text


def test_a_checkpoint_may_change_running_averages() -> None:
    """A batch counts twice, as in eager, and what reads the averages afterwards reads the new ones."""

    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6)
            self.inner = Checkpointed(nn.Sequential(self.norm, nn.Tanh()), use_reentrant=False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            assert self.norm.running_mean is not None
            return (y + self.norm.running_mean).tanh()

    torch.manual_seed(0)
    model = Read().double()
    fused, _ = used(model)
    x = torch.randn(5, 6, dtype=torch.float64)
    hold_seen(seen(fused, (x,), fused), seen(model, (x,), model))
    assert model.norm.num_batches_tracked == fused.norm.num_batches_tracked == 2


def test_effects_know_what_a_checkpoint_changes() -> None:
    """Nothing that reads an average is moved past a checkpoint that changes it."""
    found: dict[str, bool] = {}

    def read(module: fx.GraphModule, inputs: list[Any]) -> Any:
        write_checkpoints(module.graph, inputs)
        effects = effects_of(module.graph, inputs)
        found.update({node.name: effects.may_move(node) for node in module.graph.nodes})
        return module.forward

    norm = nn.BatchNorm1d(6)

    def form(x: Tensor) -> tuple[Tensor, Tensor]:
        before = norm.running_mean * 2
        return checkpoint(norm, x, use_reentrant=False) + before, x * 3

    torch.compile(form, backend=read)(torch.randn(5, 6))
    assert (found["before"], found["mul_1"]) == (False, True)
