"""Standard deviations of rows whose squares float32 does not hold.

Variances and norms are infinite there, as torch's are. The squares in a layer norm are too: torch's result is
NaN then, ours 0.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from conftest import DEVICES, built_alone


@pytest.fixture(scope="module")
def deviation(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    text = "order: 2\nchain:\n  - std: {dim: -1}\n"
    folder = tmp_path_factory.mktemp("deviation")
    return built_alone(folder, "deviation", text, [torch.float64, torch.float32])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e-10, 1.0, 1e15, 1e20, 1e36])
def test_std_at_every_scale(scale: float, device: str, deviation: ModuleType) -> None:
    generator = torch.Generator().manual_seed(5)
    x = (torch.randn(7, 65, generator=generator) + 3).mul(scale).to(device).requires_grad_()
    truth = x.detach().double().requires_grad_()
    got, wanted = deviation.apply(x), truth.std(-1)
    torch.testing.assert_close(got.double(), wanted, rtol=2e-6, atol=0.0)
    (grad_x,), (slope,) = (torch.autograd.grad(y.sum(), t) for y, t in ((got, x), (wanted, truth)))
    torch.testing.assert_close(grad_x.double(), slope, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_the_unit_has_no_derivative(device: str, deviation: ModuleType) -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 5, generator=generator, dtype=torch.float64).to(device).requires_grad_()
    torch.autograd.gradcheck(deviation.apply, [x])
    torch.autograd.gradgradcheck(deviation.apply, [x])


@pytest.mark.parametrize("device", DEVICES)
def test_std_of_equal_and_special_numbers(device: str, deviation: ModuleType) -> None:
    nan, inf = float("nan"), float("inf")
    rows = [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0, nan, 2.0], [1.0, inf, 2.0], [-inf, inf, 0.0]]
    x = torch.tensor(rows, device=device, requires_grad=True)
    y = deviation.apply(x)
    torch.testing.assert_close(y, torch.tensor([0.0, 0.0, nan, nan, nan]).to(y), equal_nan=True)
    (grad_x,) = torch.autograd.grad(y[:2].sum(), x)
    assert not grad_x[:2].any()


@pytest.fixture(scope="module")
def restyled(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    text = "order: 1\noperands: {s: row}\nchain:\n  - expr: '(x - mean(x)) / std(x) * s'\n"
    return built_alone(tmp_path_factory.mktemp("restyled"), "restyled", text, [torch.float32])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1e-21, 1.0, 1e19])
def test_a_quotient_times_what_is_as_large_as_the_divisor(
    scale: float, device: str, restyled: ModuleType
) -> None:
    generator = torch.Generator().manual_seed(7)
    x, s, grad = (torch.randn(n, generator=generator).to(device) for n in ((4, 9), (4, 1), (4, 9)))
    given = [t.mul(scale).requires_grad_() for t in (x, s)]
    truth = [t.detach().double().requires_grad_() for t in given]
    got = torch.autograd.grad(restyled.apply(*given), given, grad)
    y, by = truth
    wanted = (y - y.mean(-1, keepdim=True)) / y.std(-1, keepdim=True) * by
    slopes = torch.autograd.grad(wanted, truth, grad.double())
    for one, slope in zip(got, slopes, strict=True):
        torch.testing.assert_close(one.double(), slope, rtol=2e-5, atol=2e-6)
