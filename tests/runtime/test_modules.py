"""Generated modules as drop-in replacements: constructor, state_dict, initial values, results, training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, constructor
from random_programs.build import build_specs
from shared.originals import ORIGINALS
from torch import nn

from fusegen import load

Package = Callable[[str], ModuleType]


def pair(name: str, package: Package, seed: int = 0, **to: object) -> tuple[nn.Module, nn.Module]:
    """Return the original and the generated module, made from the same seed."""
    cls, arguments = ORIGINALS[name]
    torch.manual_seed(seed)
    original = cls(*arguments)
    torch.manual_seed(seed)
    fused = package(name).Module(*arguments)
    return original.to(**to), fused.to(**to)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_constructor_is_the_originals(name: str, package: Package) -> None:
    cls, _ = ORIGINALS[name]
    wanted, got = constructor(cls), constructor(package(name).Module)
    assert list(got) == list(wanted)
    for key, parameter in wanted.items():
        if parameter.default is not parameter.empty:
            assert got[key].default == parameter.default


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_same_seed_gives_the_same_model(name: str, package: Package) -> None:
    original, fused = pair(name, package)
    assert list(original.state_dict()) == list(fused.state_dict())
    for key, value in original.state_dict().items():
        assert torch.equal(value, fused.state_dict()[key]), key


@pytest.mark.parametrize("name", ORIGINALS)
def test_state_dicts_travel_both_ways(name: str, package: Package) -> None:
    original, fused = pair(name, package)
    other, _ = pair(name, package, seed=1)
    fused.load_state_dict(other.state_dict(), strict=True)
    original.load_state_dict(fused.state_dict(), strict=True)
    assert torch.equal(next(original.parameters()), next(other.parameters()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ORIGINALS)
def test_outputs_gradients_and_buffers_are_the_originals(
    name: str, training: bool, device: str, package: Package
) -> None:
    original, fused = pair(name, package, dtype=torch.float64, device=device)
    original.train(training)
    fused.train(training)
    if training and name == "matmul_dropout_softmax":
        original.dropout.p = fused.dropout.p = 0.0  # type: ignore[union-attr]
    x = torch.randn(19, 24, dtype=torch.float64).to(device)
    for _ in range(2):  # twice: batch norm's running statistics move
        given = [x.clone().requires_grad_() for _ in range(2)]
        wanted, got = original(given[0]), fused(given[1])
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-14)
        cotangent = torch.randn(wanted.shape, dtype=torch.float64).to(device)
        expected = torch.autograd.grad(wanted, [given[0], *original.parameters()], cotangent)
        found = torch.autograd.grad(got, [given[1], *fused.parameters()], cotangent)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)
    for (key, a), b in zip(fused.named_buffers(), original.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=key)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ORIGINALS)
def test_it_trains(name: str, device: str, package: Package) -> None:
    """Ten steps of SGD in float32 follow the original's losses."""
    original, fused = pair(name, package, device=device)
    if name == "matmul_dropout_softmax":
        original.dropout.p = fused.dropout.p = 0.0  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 24, generator=generator).to(device)
    target = torch.randn(64, 37, generator=generator).to(device)
    losses = []
    for model in (original, fused):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        history = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), target)
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        losses.append(history)
    assert losses[0][-1] < losses[0][0]
    torch.testing.assert_close(
        torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-5, atol=1e-6
    )


def test_without_gradients_nothing_is_recorded(package: Package) -> None:
    _, fused = pair("matmul_gelu_softmax", package)
    x = torch.randn(3, 24)
    assert fused(x).requires_grad
    with torch.no_grad():
        assert not fused(x).requires_grad
    with torch.inference_mode():
        assert fused(x).is_inference()


BOTH = """
order: 1
arguments: {in_features: int, out_features: int}
chain:
  - linear: {name: matmul}
  - batch_norm: {name: bn}
  - dropout: {p: 0.25}
  - softmax
"""


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_two_steps_that_differ_in_training(tmp_path: Path) -> None:
    """Batch norm and dropout in one chain: fused where both train or both evaluate, else step by step."""
    (tmp_path / "norm_and_dropout.yaml").write_text(BOTH)
    build_specs([tmp_path / "norm_and_dropout.yaml"], tmp_path / "out", dtypes=["float64"])
    model = load("norm_and_dropout", tmp_path / "out").Module(6, 9).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    model.eval()
    wanted = torch.softmax(model.bn(model.matmul(x)), dim=-1)
    torch.testing.assert_close(model(x), wanted)
    model.train()
    assert model(x).sum(dim=-1).allclose(torch.ones(5, dtype=torch.float64))
    assert model.bn.num_batches_tracked == 1
    model.bn.eval()
    model.dropout.p = 0.0
    torch.testing.assert_close(model(x), torch.softmax(model.bn(model.matmul(x)), dim=-1))
    assert model.bn.num_batches_tracked == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_running_averages_are_torchs(
    dtype: torch.dtype, momentum: float | None, device: str, package: Package
) -> None:
    """Over three batches; without momentum every batch counts the same."""
    original, fused = pair("gemm_batchnorm_scale_softmax", package, device=device, dtype=dtype)
    for model in (original, fused):
        model.bn.momentum = momentum
    for rows in (5, 33, 8):
        x = torch.randn(rows, original.gemm.in_features, device=device, dtype=dtype)
        original(x), fused(x)
    # In bfloat16 two ulp: the original rounds the product before it takes its statistics, and each batch.
    rtol, atol = (1e-5, 1e-6) if dtype == torch.float32 else (2**-7, 2**-8)
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        wanted, got = getattr(original.bn, key), getattr(fused.bn, key)
        torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol)
