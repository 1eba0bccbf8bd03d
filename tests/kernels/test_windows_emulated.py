"""The kernels of windows (windows.cuh), run thread by thread by a C++ compiler, since they share nothing."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from shared.emulated import emulated
from shared.poolings import POOLS, drawn
from torch import Tensor, nn

from fusegen.runtime import windows

MAIN = """
#include "fusegen/windows.cuh"
extern "C" const char* run(const long* s, int reading, void* from, void* to, void* bias,
                           long biases, const uint8_t* found, uint8_t* finds) {
  fusegen::Windows w{};
  w.samples = s[0], w.channels = s[1], w.counts_padding = s[2];
  int* const sizes[] = {w.in, w.out, w.size, w.stride, w.padding, w.dilation};
  for (int n = 0; n < 18; ++n) sizes[n / 3][n % 3] = int(s[3 + n]);
  w.from = from, w.to = to, w.bias = biases ? bias : nullptr, w.bias_channels = biases;
  w.found = found, w.finds = finds;
  return fusegen::windows_cuda<FUSEGEN_STORED>(w, fusegen::Reading(reading), nullptr);
}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found = emulated(tmp_path_factory.mktemp("emulated"), MAIN, "-DFUSEGEN_STORED=double").run
    found.restype = ctypes.c_char_p
    return found


def operator(run: Any) -> Any:
    """Return the operator `windows`, as a package for a GPU has it, over the emulated kernels."""

    def windows_(
        x: Tensor,
        bias: Tensor,
        found: Tensor,
        reading: int,
        last: bool,
        finds: bool,
        counts: bool,
        *sizes: int,
    ) -> tuple[Tensor, Tensor]:
        images, channels = x.shape[:2]
        dims = x.dim() - 2
        places = sizes[:3] if reading >= 3 else sizes[3:6]
        shape = (images, channels, *places[3 - dims :])
        memory_format = torch.contiguous_format
        if last:
            memory_format = torch.channels_last if dims == 2 else torch.channels_last_3d
        to = torch.full(shape, torch.nan, dtype=x.dtype).contiguous(memory_format=memory_format)
        which = torch.full(shape if finds else (0,), 255, dtype=torch.uint8)
        which = which.contiguous(memory_format=memory_format) if finds else which
        given = (images, channels, counts) if last else (images * channels, 1, counts)
        numbers = (ctypes.c_long * 21)(*given, *sizes)
        pointers = [t.data_ptr() if t.numel() else None for t in (x, to, bias)]
        error = run(
            numbers,
            reading,
            *map(ctypes.c_void_p, pointers),
            ctypes.c_long(bias.numel()),
            ctypes.c_void_p(found.data_ptr() if found.numel() else None),
            ctypes.c_void_p(which.data_ptr() if finds else None),
        )
        assert error is None, error
        return to, which

    return windows_


def results(function: Any, x: Tensor, bias: Tensor) -> list[Tensor]:
    """Return a value, its gradients and a second derivative."""
    own, also = x.clone().requires_grad_(), bias.clone().requires_grad_()
    value = function(own, also)
    along = torch.linspace(-1, 1, value.numel(), dtype=x.dtype).view_as(value).requires_grad_()
    grads = torch.autograd.grad(value, (own, also), along, create_graph=True)
    again = torch.linspace(1, 2, x.numel(), dtype=x.dtype).view_as(x)
    (second,) = torch.autograd.grad(grads[0], along, again)
    with torch.no_grad():
        alone = function(x, bias)
    return [value, alone, *grads, second]


@pytest.mark.parametrize("pool", POOLS)
def test_windows_are_read_as_torch_does(
    pool: type[nn.Module], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value, gradients and second derivative, for any windows, memory format, infinity and NaN."""
    monkeypatch.setattr(windows, "_FEW", 0)
    monkeypatch.setattr(windows, "is_plain_on_gpu", lambda x: x.numel() > 0)
    monkeypatch.setitem(windows._operators, torch.float64, operator(run))
    for seed in range(24):
        torch.manual_seed(seed)
        pooling, shape = drawn(pool, seed)
        x, bias = (
            torch.randn(shape, dtype=torch.float64),
            torch.randn(shape[1], dtype=torch.float64),
        )
        if seed % 4 == 3:
            x.flatten()[::7] = [torch.inf, -torch.inf, torch.nan][seed // 4 % 3]
        if seed % 2 and x.dim() > 3:
            x = x.contiguous(
                memory_format=(torch.channels_last, torch.channels_last_3d)[x.dim() - 4]
            )
        found = windows._windows_of(pooling, x)
        assert found is not None
        wanted = results(lambda x, b: pooling(x) + b.view(-1, *[1] * (x.dim() - 2)), x, bias)  # noqa: B023
        got = results(lambda x, b: windows._run(found, x, b), x, bias)  # noqa: B023
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13, equal_nan=True)


@pytest.mark.parametrize("pooling", [nn.MaxPool1d(2, 70_000), nn.AvgPool1d(2, 70_000)])
def test_windows_may_be_far_apart(
    pooling: nn.Module, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of a dim times a stride is above 2^32 here."""
    monkeypatch.setattr(windows, "_FEW", 0)
    monkeypatch.setattr(windows, "is_plain_on_gpu", lambda x: x.numel() > 0)
    monkeypatch.setitem(windows._operators, torch.float64, operator(run))
    torch.manual_seed(0)
    x, bias = torch.randn(1, 1, 140_002, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    found = windows._windows_of(pooling, x)
    assert found is not None
    wanted = results(lambda x, b: pooling(x) + b, x, bias)
    got = results(lambda x, b: windows._run(found, x, b), x, bias)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("memory_format", ["preserve", "channels_last"])
@pytest.mark.parametrize(
    "pooling", [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.AvgPool2d(2, padding=1)]
)
def test_a_convolution_is_pooled_with_its_bias(
    pooling: nn.Module, memory_format: Any, bias: bool, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the bias is added before the pooling or after it, and in which format the convolution runs."""
    monkeypatch.setattr(windows, "_FEW", 0)
    monkeypatch.setattr(windows, "is_plain_on_gpu", lambda x: x.numel() > 0)
    monkeypatch.setitem(windows._operators, torch.float64, operator(run))
    torch.manual_seed(1)
    for convolution in (
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias),
        nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2, bias=bias),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", bias=bias),
    ):
        convolution = convolution.double()
        leaves = [torch.randn(2, 4, 9, 7, dtype=torch.float64, requires_grad=True)]
        leaves += convolution.parameters()
        values = [
            pooling(convolution(leaves[0])),
            windows.convolve_and_pool(convolution, pooling, leaves[0], memory_format),
        ]
        wanted, got = (
            [value, *torch.autograd.grad(value.square().sum(), leaves)] for value in values
        )
        for one, other in zip(got, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
