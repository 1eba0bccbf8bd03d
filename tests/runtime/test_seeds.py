"""A number as seed is the tensor of it, and waits for nothing."""

from __future__ import annotations

import pytest
import torch
from conftest import DEVICES
from shared.torch_calls import Package


@pytest.mark.parametrize("device", DEVICES)
def test_a_number_as_seed_is_the_tensor_of_it(device: str, package: Package) -> None:
    apply = package("matmul_dropout_softmax").apply
    x, bias = torch.randn(6, 40, device=device), torch.randn(40, device=device)
    for seed in (5, 0, -1, 2**63, 2**64 - 1, -(2**63)):
        wrapped = (seed + 2**63) % 2**64 - 2**63
        tensor = torch.tensor([wrapped], device=device)
        got = apply(x, bias, training=True, seed=seed)
        assert torch.equal(got, apply(x, bias, training=True, seed=tensor))
    assert not torch.equal(got, apply(x, bias, training=True, seed=5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_number_as_seed_waits_for_nothing(package: Package) -> None:
    """No copy from the host, so that the CPU runs ahead, and a graph can be captured."""
    apply = package("matmul_dropout_softmax").apply
    x, bias = torch.randn(64, 128, device="cuda"), torch.randn(128, device="cuda")
    wanted = apply(x, bias, training=True, seed=5)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert apply(x, bias, training=True, seed=5).shape == x.shape
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = apply(x, bias, training=True, seed=5)
    graph.replay()
    assert torch.equal(out, wanted)
