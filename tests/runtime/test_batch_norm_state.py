"""What a batch norm keeps between calls: running averages and the count of batches, as in torch."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import DEVICES
from shared.originals import ORIGINALS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

Package = Callable[[str], ModuleType]
STATE = ("running_mean", "running_var", "num_batches_tracked")


def pair(package: Package, **to: Any) -> tuple[Any, Any]:
    """Return the original and the generated module in training, with running averages of several batches."""
    cls, arguments = ORIGINALS["gemm_batchnorm_scale_softmax"]
    made = []
    for kind in (cls, package("gemm_batchnorm_scale_softmax").Module):
        torch.manual_seed(0)
        model = kind(*arguments)
        model.bn.running_mean.normal_()
        model.bn.running_var.uniform_(0.5, 2)
        model.bn.num_batches_tracked.fill_(3)
        made.append(model.to(**to))
    return made[0], made[1]


def same_state(original: Any, fused: Any, **tolerances: float) -> None:
    for key in STATE:
        torch.testing.assert_close(getattr(fused.bn, key), getattr(original.bn, key), **tolerances)


def both_run(models: tuple[Any, Any], x: Tensor) -> None:
    """Call both, take gradients, and compare everything."""
    found = []
    for model in models:
        given = x.clone().requires_grad_()
        out = model(given)
        leaves = [given, *(p for p in model.parameters() if p.requires_grad)]
        found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    same_state(*models)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_an_empty_batch_counts_and_moves_nothing(
    momentum: float | None, device: str, package: Package
) -> None:
    models = pair(package, dtype=torch.float64, device=device)
    for model in models:
        model.bn.momentum = momentum
    before = models[0].bn.running_mean.clone()
    both_run(models, torch.randn(0, 24, dtype=torch.float64, device=device))
    assert torch.equal(models[1].bn.running_mean, before)
    assert models[1].bn.num_batches_tracked == 4
    both_run(models, torch.randn(5, 24, dtype=torch.float64, device=device))


def test_one_value_a_channel_is_refused_as_torch_refuses_it(package: Package) -> None:
    models = pair(package)
    for model in models:
        with pytest.raises(ValueError, match=r"(?i)expected more than one value|more than 1 value"):
            model(torch.randn(1, 24))
    same_state(*models)
    for model in models:  # in evaluation one is enough
        assert model.eval()(torch.randn(1, 24)).shape == (1, 37)


@pytest.mark.parametrize("early", [True, False], ids=["early stop", "to the end"])
@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_under_a_checkpoint_a_batch_counts_twice_as_in_torch(
    momentum: float | None, reentrant: bool, early: bool, package: Package
) -> None:
    """torch calls a batch norm twice, and moves count and averages twice; so do we."""
    models = pair(package, dtype=torch.float64)
    x = torch.randn(9, 24, dtype=torch.float64)
    gradients = []
    for model in models:
        model.bn.momentum = momentum
        given = x.clone().requires_grad_()
        with set_checkpoint_early_stop(early):
            checkpoint(model, given, use_reentrant=reentrant).square().sum().backward()
        gradients.append([given.grad, *(p.grad for p in model.parameters())])
    for wanted, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)
    assert models[0].bn.num_batches_tracked == 5
    same_state(*models)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, None])
@pytest.mark.parametrize("recorded", [True, False], ids=["with gradients", "no_grad"])
def test_state_over_batches_of_several_sizes(
    recorded: bool, momentum: float | None, device: str, package: Package
) -> None:
    models = pair(package, dtype=torch.float64, device=device)
    for model in models:
        model.bn.momentum = momentum
    for rows in (5, 2, 64, 0, 33):
        x = 3 * torch.randn(rows, 24, dtype=torch.float64, device=device) + 1
        if recorded:
            both_run(models, x)
        else:
            with torch.no_grad():
                torch.testing.assert_close(models[1](x), models[0](x))
            same_state(*models)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("frozen", ["bn", "gemm", "scale", "all but x"])
def test_frozen_parameters(frozen: str, training: bool, package: Package) -> None:
    models = pair(package, dtype=torch.float64)
    for model in models:
        model.train(training)
        names = ("bn", "gemm", "scale") if frozen == "all but x" else (frozen,)
        for name in names:
            part = getattr(model, name)
            part.requires_grad_(False)
    both_run(models, torch.randn(7, 24, dtype=torch.float64))


def test_only_the_norm_learns(package: Package) -> None:
    models = pair(package, dtype=torch.float64)
    x = torch.randn(7, 24, dtype=torch.float64)
    found = []
    for model in models:
        model.requires_grad_(False)
        model.bn.requires_grad_(True)
        model(x).square().sum().backward()
        found.append([model.bn.weight.grad, model.bn.bias.grad])
        assert model.gemm.weight.grad is None
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    same_state(*models)


def test_gradients_in_evaluation(package: Package) -> None:
    """By x and every parameter, through the running averages, which stay as they are."""
    models = pair(package, dtype=torch.float64)
    for model in models:
        model.eval()
    both_run(models, torch.randn(6, 24, dtype=torch.float64))
    assert models[1].bn.num_batches_tracked == 3
    both_run(models, torch.randn(1, 24, dtype=torch.float64))
    both_run(models, torch.randn(0, 24, dtype=torch.float64))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_keeps_the_averages_in_float32(
    dtype: torch.dtype, device: str, package: Package
) -> None:
    """The product is rounded by both; the statistics of it are not."""
    models = pair(package, device=device)
    for rows in (16, 64):
        x = torch.randn(rows, 24, device=device)
        with torch.autocast(device, dtype=dtype):
            for model in models:
                model(x).float().square().sum().backward()
    assert models[1].bn.running_var.dtype == torch.float32
    # The original rounds the bias into the product before it takes the statistics.
    same_state(*models, rtol=float(torch.finfo(dtype).eps), atol=float(torch.finfo(dtype).eps))


@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_modules(device: str, package: Package) -> None:
    models = pair(package, device=device, dtype=torch.bfloat16)
    x = torch.randn(64, 24, device=device, dtype=torch.bfloat16)
    for model in models:
        model(x)
    same_state(*models, rtol=2**-7, atol=2**-8)


def test_the_count_is_restored_and_reset(package: Package) -> None:
    models = pair(package, dtype=torch.float64)
    x = torch.randn(6, 24, dtype=torch.float64)
    both_run(models, x)
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        model.bn.reset_running_stats()
    same_state(*models)
    both_run(models, x)
    assert models[1].bn.num_batches_tracked == 1


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("tracking", [False, True])
def test_without_weights_or_averages(
    tracking: bool, affine: bool, training: bool, package: Package
) -> None:
    models = pair(package, dtype=torch.float64)
    for model in models:
        norm = nn.BatchNorm1d(37, affine=affine, track_running_stats=tracking)
        model.bn = norm.double()
        model.train(training)
    x = torch.randn(6, 24, dtype=torch.float64)
    found = [model(x) for model in models]
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
    for key in STATE:
        wanted, got = (getattr(model.bn, key) for model in models)
        assert wanted is None and got is None if not tracking else torch.allclose(wanted, got)
