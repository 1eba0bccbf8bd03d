"""Sums for each of a few channels that many rows leave parts of: a GPU adds them up in two launches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import DEVICES
from shared.chains_of_texts import Built, built_texts
from torch import Tensor
from torch.nn import functional as F

TEXTS = {
    # A row of each channel after the other.
    "parts_in_turn": "order: 1\ndims: 3\narguments: {channels: int}\n"
    "chain:\n  - instance_norm: {features: channels, affine: true}\n",
    # Several neighbouring rows of each channel, and a sum over all elements.
    "parts_in_runs": "order: 1\ndims: 4\n"
    "operands: {factor: {dims: [1]}, scale: scalar}\n"
    "chain: [softmax, {mul: factor}, {mul: scale}]\n",
}
BY_TORCH: dict[str, Callable[..., Tensor]] = {
    "parts_in_turn": lambda x, w, b: F.instance_norm(x, weight=w, bias=b),
    "parts_in_runs": lambda x, w, s: x.softmax(-1) * w * s,
}
#: With one channel, with few, and with so many that one launch has enough blocks.
SHAPES = {
    "parts_in_turn": [(70_001, 3, 8), (9001, 1, 5), (3000, 130, 4), (1, 2, 4), (257, 8, 4)],
    "parts_in_runs": [(5001, 3, 7, 4), (2049, 1, 5, 3), (700, 65, 6, 2), (1, 2, 3, 4)],
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    dtypes = dict.fromkeys(TEXTS, ("float32", "bfloat16"))
    return built_texts(tmp_path_factory, "many_parts", TEXTS, dtypes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "shape"), [(n, s) for n in TEXTS for s in SHAPES[n]])
def test_gradients_of_channels(
    built: dict[str, Built], name: str, shape: tuple[int, ...], device: str
) -> None:
    """A sum of so many terms is as exact as its terms: their signs vary."""
    generator = torch.Generator().manual_seed(11)
    channels = shape[1]
    in_turn = name == "parts_in_turn"
    operands = [(channels,), (channels,)] if in_turn else [(channels, 1, 1), ()]
    drawn = [
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in (shape, *operands, shape)
    ]
    for dtype, epsilon in ((torch.float32, 2e-6), (torch.bfloat16, 1e-2)):
        given = [t.to(device, dtype) for t in drawn]
        gradients = []
        for function, kind in ((built[name][1].apply, dtype), (BY_TORCH[name], torch.float64)):
            *tensors, along = (t.to(kind) for t in given)
            leaves = [t.requires_grad_() for t in tensors]
            gradients.append(torch.autograd.grad(function(*leaves), leaves, along))
        x, weight, _, along = (t.double() for t in given)
        # Each sum's terms are at most about as large as these.
        size = (along.square().sum() / channels).sqrt() * (1 + weight.abs().max())
        for found, wanted in zip(gradients[0][1:], gradients[1][1:], strict=True):
            bound = epsilon * (size + wanted.abs().max())
            assert (found.double() - wanted).abs().max() <= bound, (name, dtype)
        assert torch.equal(gradients[0][0].isfinite(), x.isfinite())
