"""Statistics of a batch that a model writes out: one region with what is computed of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fusegen


class OfBatch(nn.Module):
    """A batch norm by hand, after a convolution of 1 or 2 dims."""

    def __init__(self, dims: int, *, by_var: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(6))
        self.conv = (nn.Conv1d, nn.Conv2d)[dims - 1](3, 6, 3, bias=False)
        self.dims, self.by_var = dims, by_var

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        over = [0, *range(2, self.dims + 2)]
        mean = x.mean(over, keepdim=True)
        if self.by_var:
            var = x.var(over, unbiased=False, keepdim=True)
        else:
            var = (x - mean).square().mean(over, keepdim=True)
        shape = (-1, *[1] * self.dims)
        scaled = (x - mean) * torch.rsqrt(var + 1e-5) * self.weight.view(shape)
        return torch.relu(scaled + self.bias.view(shape))


@pytest.mark.parametrize("by_var", [False, True])
@pytest.mark.parametrize("dims", [1, 2])
def test_a_batch_norm_by_hand_is_one_region(tmp_path: Path, dims: int, by_var: bool) -> None:
    torch.manual_seed(950400 + dims)
    model = OfBatch(dims, by_var=by_var).double()
    sizes = [(5, 3, *[9] * dims), (2, 3, *[7] * dims)]
    x = torch.randn(sizes[0]).double()
    fused = fusegen.fuse(model, x, everything=True, folder=tmp_path)
    assert "1 of 1 regions fused" in str(fusegen.report(fused))
    formats = [torch.contiguous_format, torch.channels_last][:dims]
    for size in sizes:
        for lies in formats:
            given = torch.randn(size).double().contiguous(memory_format=lies)
            results = []
            for called in (model, fused):
                x = given.clone().requires_grad_()
                value = called(x)
                weight = torch.linspace(-1, 1, value.numel()).double().view_as(value)
                leaves = [x, *called.parameters()]
                results.append([value, *torch.autograd.grad((value * weight).sum(), leaves)])
            for wanted, found in zip(*results, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_a_maximum_over_them_is_left_to_torch(tmp_path: Path) -> None:
    def scaled(x: Tensor) -> Tensor:
        return torch.tanh(x) / x.abs().amax((0, 2, 3), keepdim=True)

    x = torch.randn(4, 3, 5, 5)
    fused = fusegen.fuse(scaled, x, everything=True, folder=tmp_path)
    torch.testing.assert_close(fused(x), scaled(x))
    assert "amax x 1: a reduction over dims that are not neighbours" in str(fusegen.report(fused))
