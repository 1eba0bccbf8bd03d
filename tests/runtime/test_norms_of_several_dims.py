"""Norms of several dims whose parameters torch's module holds, and a parameter as large as such a row."""

from __future__ import annotations

import copy
from types import ModuleType

import pytest
import torch
from conftest import built_alone
from torch import Tensor, nn

TEXT = """
order: 1
dims: 4
arguments:
  channels: int
  row_shape: shape
operands:
  gain: {kind: col, init: ones, shape: [channels, 4, 5]}
chain:
  - layer_norm: {name: first, elementwise_affine: true, features: [channels, 4, 5]}
  - mul: gain
  - tanh
  - rms_norm: {name: last, elementwise_affine: true, features: row_shape, dim: [2, 3], eps: 1e-5}
"""


class Original(nn.Module):
    """The model as people have it."""

    def __init__(self, channels: int, row_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.first = nn.LayerNorm([channels, 4, 5])
        self.gain = nn.Parameter(torch.ones(channels, 4, 5))
        self.last = nn.RMSNorm(row_shape, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(torch.tanh(self.first(x) * self.gain))
        return out


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("norms_of_several_dims")
    return built_alone(folder, "norms_of_several_dims", TEXT, [torch.float64])


@pytest.mark.slow
@pytest.mark.parametrize("row_shape", [(4, 5), (3, 4, 5)])
def test_they_are_drop_in(
    package: ModuleType, row_shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    original = Original(3, row_shape).double()
    fused = package.Module(3, row_shape).double()
    for parameter in original.parameters():
        nn.init.normal_(parameter)
    fused.load_state_dict(original.state_dict())
    calls: list[int] = []
    in_torch = package.Module._step_by_step

    def counted(module: nn.Module, *given: Tensor) -> Tensor:
        calls.append(1)
        out: Tensor = in_torch(module, *given)
        return out

    monkeypatch.setattr(package.Module, "_step_by_step", counted)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = []
    for model in (original, copy.deepcopy(fused)):
        given = x.clone().requires_grad_()
        out = model(given)
        out.backward(torch.cos(x))
        found.append([out, given.grad, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(found[1], found[0])
    # Kernels are made for the dims of the spec alone.
    assert len(calls) == (0 if len(row_shape) == 2 else 1)
