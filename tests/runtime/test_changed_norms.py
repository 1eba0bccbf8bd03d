"""Batch norms, dropouts and hooks that people change keep their meaning in a generated Module."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from shared.model_pairs import agree, half, pair, pulling
from shared.torch_calls import Package
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_full_backward_hook,
)


class Shifted(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


def shifted(model: nn.Module) -> None:
    model.bn.__class__ = Shifted


def untracked(model: nn.Module) -> None:
    model.bn = nn.BatchNorm1d(37, track_running_stats=False).double().train(model.training)


def not_affine(model: nn.Module) -> None:
    model.bn = nn.BatchNorm1d(37, affine=False).double().train(model.training)


def synchronised(model: nn.Module) -> None:
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


def bias_of_the_norm(model: nn.Module) -> None:
    model.bn.bias = None


#: What people do to a batch norm.
NORMS: dict[str, Callable[[nn.Module], object]] = {
    "hook": lambda m: m.bn.register_forward_hook(half),
    "backward hook": lambda m: m.bn.register_full_backward_hook(pulling),
    "eps": lambda m: setattr(m.bn, "eps", 0.5),
    "momentum": lambda m: setattr(m.bn, "momentum", 0.7),
    "cumulative": lambda m: setattr(m.bn, "momentum", None),
    "track_running_stats": lambda m: setattr(m.bn, "track_running_stats", False),
    "made without running averages": untracked,
    "made without affine": not_affine,
    "no bias": bias_of_the_norm,
    "evaluating": lambda m: m.bn.eval(),
    "frozen": lambda m: m.bn.requires_grad_(False),
    "subclass": shifted,
    "folded away": lambda m: setattr(m, "bn", nn.Identity()),
    "no count": lambda m: setattr(m.bn, "num_batches_tracked", None),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("change", NORMS)
def test_a_changed_batch_norm(change: str, training: bool, package: Package) -> None:
    original, fused = pair("gemm_batchnorm_scale_softmax", package, training=training)
    for model in (original, fused):
        NORMS[change](model)
    agree(original, fused, torch.randn(9, 24, dtype=torch.float64))


def test_convert_sync_batchnorm(package: Package) -> None:
    """Without a process group it computes what a batch norm does, and it is what is called."""
    original, fused = pair("gemm_batchnorm_scale_softmax", package)
    called = []
    for model in (original, fused):
        synchronised(model)
        assert type(model.bn) is nn.SyncBatchNorm
        model.bn.register_forward_hook(lambda m, *_: called.append(m))
    x = torch.randn(9, 24, dtype=torch.float64)
    for training in (False, True):
        agree(original.train(training), fused.train(training), x)
    assert called.count(fused.bn) == called.count(original.bn) == 4


@pytest.mark.parametrize("change", ["p", "hook", "frozen", "alpha", "identity"])
def test_a_changed_dropout(change: str, package: Package) -> None:
    original, fused = pair("matmul_dropout_softmax", package, training=True)
    for model in (original, fused):
        if change == "p":
            model.dropout.p = 0.0
        elif change == "hook":
            model.dropout.register_forward_hook(half)
        elif change == "frozen":
            model.dropout.eval()
        elif change == "alpha":
            model.dropout = nn.AlphaDropout(0.3)
        else:
            model.dropout = nn.Identity()
    agree(original, fused, torch.randn(9, 24, dtype=torch.float64))


@pytest.mark.parametrize("hook", ["forward", "backward"])
@pytest.mark.parametrize("name", ["gemm_batchnorm_scale_softmax", "matmul_gelu_softmax"])
def test_hooks_of_every_module(name: str, hook: str, package: Package) -> None:
    """They see the submodules that torch would call."""
    models = pair(name, package)
    seen: list[list[str]] = []

    def note(module: nn.Module, *_: object) -> None:
        seen[-1].append(type(module).__name__)

    register = (
        register_module_forward_hook if hook == "forward" else register_module_full_backward_hook
    )
    handle = register(note)
    try:
        for model in models:
            seen.append([])
            model(torch.randn(5, 24, dtype=torch.float64)).sum().backward()
    finally:
        handle.remove()
    wanted = [kind for kind in seen[0] if kind in ("Linear", "BatchNorm1d")]
    assert wanted and [kind for kind in seen[1] if kind in ("Linear", "BatchNorm1d")] == wanted
