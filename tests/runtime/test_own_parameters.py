"""A Module whose parameters are named, shaped and started as those of the model it replaces."""

from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import built_alone
from torch import Tensor, nn

TEXT = """
order: 1
arguments:
  in_features: int
  out_features: int
  bias: {type: bool, default: true}
  scale: {type: float, default: 0.5}
operands:
  scale: {kind: scalar, init: scale, shape: []}
  shift: {kind: col, init: -0.25}
chain:
  - linear: {name: mlp.0}
  - layer_norm: {name: mlp.1.LayerNorm, elementwise_affine: true, eps: 1e-3}
  - swish
  - scale: scale
  - rms_norm: {name: last, eps: 1e-5, elementwise_affine: bias}
  - add: shift
"""


class Norm(nn.Module):
    """A norm within a module of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.LayerNorm = nn.LayerNorm(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(x)
        return out


class Original(nn.Module):
    """The model as people have it."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, scale: float = 0.5
    ) -> None:
        super().__init__()
        linear = nn.Linear(in_features, out_features, bias=bias)
        self.mlp = nn.Sequential(linear, Norm(out_features))
        self.scale = nn.Parameter(torch.tensor(scale))
        self.last = nn.RMSNorm(out_features, eps=1e-5, elementwise_affine=bias)
        self.shift = nn.Parameter(torch.full((out_features,), -0.25))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.mlp(x)) * self.scale
        return self.last(x) + self.shift


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder: Path = tmp_path_factory.mktemp("own_parameters")
    return built_alone(folder, "own_parameters", TEXT, [torch.float32])


def results(model: nn.Module, names: list[str], x: Tensor) -> list[Tensor]:
    """Return the value, and the gradients of x and of parameters by name."""
    given = x.clone().requires_grad_()
    out = model(given)
    leaves = [given, *map(model.get_parameter, names)]
    found = [out, *torch.autograd.grad((out * out.detach().cos()).sum(), leaves)]
    return [tensor.detach() for tensor in found]


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False])
def test_a_checkpoint_of_the_original_is_one_of_the_module(package: ModuleType, bias: bool) -> None:
    torch.manual_seed(0)
    original = Original(33, 65, bias, scale=1.5)
    fused = package.Module(33, 65, bias, scale=1.5)
    started, state = fused.state_dict(), original.state_dict()
    assert started.keys() == state.keys()
    for name in ("scale", "shift", "mlp.1.LayerNorm.weight"):
        assert torch.equal(started[name], state[name]), name
    for parameter in original.parameters():  # none that changes nothing
        nn.init.normal_(parameter)
    fused.load_state_dict(original.state_dict())
    x, names = torch.randn(31, 33), [name for name, _ in fused.named_parameters()]
    truth = results(copy.deepcopy(original).double(), names, x.double())
    eager, own = (results(model, names, x) for model in (original, fused))
    for value, other, wanted in zip(own, eager, truth, strict=True):
        assert value.shape == other.shape
        error, usual = (float((t - wanted).norm()) for t in (value, other))
        assert error <= 4 * usual + 2e-7 * float(wanted.norm())


@pytest.mark.slow
def test_a_norm_with_a_hook_is_called(package: ModuleType) -> None:
    fused = package.Module(33, 65)
    x = torch.randn(7, 33)
    before = fused(x)
    norm = fused.get_submodule("mlp.1.LayerNorm")
    norm.register_forward_hook(lambda *_: torch.zeros(7, 65))
    assert not torch.allclose(fused(x), before)
    torch.testing.assert_close(fused(x), fused.shift.expand(7, 65))
