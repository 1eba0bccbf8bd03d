"""Pooling in a Module: the same as in torch, on a GPU by kernels of its own, whatever the windows are."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import DEVICES, once, shared
from shared.poolings import POOLS, drawn
from shared.vocabulary import build_for_devices
from torch import Tensor, nn

from fusegen import load
from fusegen.runtime import windows

SPEC = """
order: 1
arguments: {in_channels: int, out_channels: int, kernel_size: int}
chain:
  - conv_transpose2d: {name: first}
  - max_pool2d: {name: largest, kernel_size: 3, stride: 2, padding: 1}
  - hardtanh
  - conv2d: {name: second, in_channels: out_channels, out_channels: out_channels, kernel_size: kernel_size}
  - avg_pool2d: {name: mean, kernel_size: 2}
"""


class Plain(nn.Module):
    """The model of the spec."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(in_channels, out_channels, kernel_size)
        self.largest = nn.MaxPool2d(3, 2, 1)
        self.second = nn.Conv2d(out_channels, out_channels, kernel_size)
        self.mean = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return its value."""
        x = torch.nn.functional.hardtanh(self.largest(self.first(x)))
        return self.mean(self.second(x))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = shared(tmp_path_factory) / "windows"
    once(tmp_path_factory, "windows", lambda: build_for_devices(folder, {"pooled_twice": SPEC}))
    return load("pooled_twice", folder / "generated")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory_format", ["auto", "channels_last"])
def test_a_module_pools_as_torch_does(
    memory_format: Any, device: str, package: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_FEW", 0)
    plain, fused = Plain(3, 5, 3).to(device).double(), package.Module(3, 5, 3).to(device).double()
    fused.load_state_dict(plain.state_dict())
    fused.memory_format = memory_format
    x = torch.randn(2, 3, 13, 9, device=device, dtype=torch.float64)
    results = []
    for model in (plain, fused):
        own = x.clone().requires_grad_()
        value = model(own)
        leaves = [own, *model.parameters()]
        results.append([value, *torch.autograd.grad(value.square().sum(), leaves)])
    for wanted, got in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_an_adapter_around_a_convolution_is_called(package: ModuleType) -> None:
    """It need not have a weight of its own."""
    fused = package.Module(3, 5, 3)
    x = torch.randn(2, 3, 13, 9)
    wanted = fused(x)
    fused.first = nn.Sequential(fused.first, nn.Identity())
    torch.testing.assert_close(fused(x), wanted, rtol=0, atol=0)


def test_a_hook_sees_each_submodule_called(package: ModuleType) -> None:
    """A convolution whose value is pooled is called, or replaced only where nothing watches it."""
    fused, seen = package.Module(3, 5, 3), []
    for name in ("first", "largest", "second", "mean"):
        fused.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    fused(torch.randn(2, 3, 13, 9))
    assert seen == ["first", "largest", "second", "mean"]


@pytest.mark.parametrize("pool", POOLS)
def test_as_many_windows_as_torch_has(pool: type[nn.Module]) -> None:
    for seed in range(40):
        pooling, shape = drawn(pool, seed)
        n = len(shape) - 2
        each = [windows._each(getattr(pooling, a), n) for a in ("kernel_size", "stride", "padding")]
        dilation = windows._each(getattr(pooling, "dilation", 1), n)
        found = [
            windows._out(*sizes, bool(pooling.ceil_mode))
            for sizes in zip(shape[2:], *each, dilation, strict=True)
        ]
        assert found == list(pooling(torch.zeros(shape)).shape[2:]), (pooling, shape)


@pytest.mark.parametrize("device", DEVICES[1:])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_windows_are_read_as_torch_does(
    pool: type[nn.Module],
    dtype: torch.dtype,
    device: str,
    package: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Value, gradient and second derivative, for any windows, memory format, infinity and NaN."""
    assert package.__name__
    monkeypatch.setattr(windows, "_FEW", 0)
    eps = torch.finfo(dtype).eps
    for seed in range(24):
        pooling, shape = drawn(pool, seed)
        x = torch.randn(shape, device=device, dtype=dtype)
        if seed % 4 == 3:
            x.flatten()[::7] = [torch.inf, -torch.inf, torch.nan][seed // 4 % 3]
        if seed % 2 and x.dim() > 3:
            x = x.contiguous(
                memory_format=[torch.channels_last, torch.channels_last_3d][x.dim() - 4]
            )
        assert windows._windows_of(pooling, x) is not None
        results = []
        for given in (x.double().cpu(), x):  # some of torch's own results on a GPU are wrong
            own = given.clone().requires_grad_()
            value = windows.pool_windows(pooling, own)
            along = torch.linspace(-1, 1, value.numel(), dtype=x.dtype).view(value.shape)
            along = along.to(given).requires_grad_()
            (grad,) = torch.autograd.grad(value, own, along, create_graph=True)
            again = torch.linspace(1, 2, x.numel(), dtype=x.dtype).view(shape).to(given)
            (second,) = torch.autograd.grad(grad, along, again)
            with torch.no_grad():
                alone = windows.pool_windows(pooling, given)
            results.append([value, alone, grad, second])
        assert value.is_contiguous() or value.stride(1) == x.stride(1) == 1
        for wanted, got in zip(*results, strict=True):
            assert got.dtype is dtype
            found = got.cpu().double()
            torch.testing.assert_close(found, wanted, rtol=8 * eps, atol=8 * eps, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES[1:])
def test_a_second_derivative_of_a_pooling_is_exact(device: str, package: ModuleType) -> None:
    assert package.__name__
    x = torch.randn(2, 3, 6, 5, device=device, dtype=torch.float64, requires_grad=True)
    for pooling in (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(windows, "_FEW", 0)
            torch.autograd.gradgradcheck(lambda x: windows.pool_windows(pooling, x).square(), x)  # noqa: B023
