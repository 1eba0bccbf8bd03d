"""Sums over hundreds of thousands of rows are as exact as their terms, though each is added in float32.

All terms have one sign, so that roundings of a running sum would add up.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import DEVICES
from shared.chains_of_texts import Built, built_texts
from torch import Tensor

TEXTS = {
    "long_columns": "order: 1\noperands: {b: col}\nchain: [{add: b}, tanh]\n",
    "long_channels": "order: 1\ndims: 4\noperands: {b: {dims: [1]}}\nchain: [{add: b}, tanh]\n",
    "long_statistics": "order: 1\ndims: 4\narguments: {channels: int}\n"
    "chain:\n  - batch_norm: {features: channels}\n",
}
SHAPES = {
    "long_columns": [(400_001, 4), (1_000_003, 1), (50_000, 67)],
    "long_channels": [(200_001, 3, 2, 1), (3, 5, 301, 299)],
    "long_statistics": [(200_001, 3, 2, 1), (23_353, 16, 4, 2), (3, 5, 301, 299)],
}
FORMATS = {2: ["contiguous_format"], 4: ["contiguous_format", "channels_last"]}
CASES = [
    (n, shape, f) for n, shapes in SHAPES.items() for shape in shapes for f in FORMATS[len(shape)]
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    return built_texts(tmp_path_factory, "long_sums", TEXTS, dict.fromkeys(TEXTS, ("float32",)))


def normalised(x: Tensor) -> Tensor:
    """Return x without its channels' means, over their deviations."""
    mean = x.mean((0, 2, 3), keepdim=True)
    deviation = (x.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    return (x - mean) / deviation


def gradient(function: Callable[..., Tensor], x: Tensor, b: Tensor, along: Tensor) -> Tensor:
    leaf = b.clone().requires_grad_()
    return torch.autograd.grad(function(x, leaf), leaf, along)[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "shape", "memory_format"), CASES)
def test_a_long_sum_is_exact(
    built: dict[str, Built],
    name: str,
    shape: tuple[int, ...],
    memory_format: str,
    device: str,
) -> None:
    """To 2 ulp of float32, of a result to 4: those are the roundings of each term and the last steps."""
    generator = torch.Generator().manual_seed(12)
    x, along = (torch.rand(shape, generator=generator).to(device) for _ in range(2))
    order = getattr(torch, memory_format)
    x, along = (t.contiguous(memory_format=order) for t in (x, along))
    package, ulp = built[name][1], torch.finfo(torch.float32).eps
    if name == "long_statistics":
        found, wanted = package.Module(shape[1]).to(device)(x), normalised(x.double())
        assert (found.double() - wanted).abs().max() <= 4 * ulp
        return
    size = (shape[1], *[1] * (len(shape) - 2))
    b = torch.rand(size, generator=generator).to(device)
    found = gradient(package.apply, x, b, along)
    wanted = gradient(lambda x, b: torch.tanh(x + b), x.double(), b.double(), along.double())
    assert ((found.double() - wanted) / wanted).abs().max() <= 2 * ulp
