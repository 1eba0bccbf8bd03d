"""Pooling over the columns of a matrix, as people write it with an unsqueeze."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from conftest import built_alone
from torch import Tensor, nn
from torch.nn import functional as F

from fusegen.base.errors import SpecError
from fusegen.runtime.windows import pool_windows
from fusegen.spec import parse

TEXT = """
order: 1
dims: 2
arguments: {in_features: int, out_features: int}
chain:
  - linear: {name: first}
  - tanh
  - linear: {name: second, in_features: out_features, out_features: 24}
  - avg_pool1d: {name: pool, kernel_size: 4}
  - gelu
  - max: {dim: 1}
"""


class Original(nn.Module):
    """The model as people have it."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.first = nn.Linear(in_features, out_features)
        self.second = nn.Linear(out_features, 24)
        self.pool = nn.AvgPool1d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.tanh(self.first(x)))
        x = F.gelu(self.pool(x.unsqueeze(1)).squeeze(1))
        return torch.max(x, dim=1).values


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("pooled_rows")
    return built_alone(folder, "pooled_rows", TEXT, [torch.float64])


@pytest.mark.slow
def test_it_is_drop_in(package: ModuleType) -> None:
    torch.manual_seed(0)
    original, fused = Original(5, 7).double(), package.Module(5, 7).double()
    fused.load_state_dict(original.state_dict())
    x = torch.randn(6, 5, dtype=torch.float64)
    found = []
    for model in (original, fused):
        given = x.clone().requires_grad_()
        out = model(given)
        out.backward(torch.cos(x[:, 0]))
        found.append([out, given.grad, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("pooling", [nn.MaxPool1d(4), nn.AvgPool1d(4), nn.AvgPool1d(3, 2, 1)])
def test_a_batch_may_be_empty(pooling: nn.Module) -> None:
    """torch refuses a matrix without rows, and takes it with a dim of channels."""
    x = torch.empty(0, 24, requires_grad=True)
    value = pool_windows(pooling, x)
    assert value.shape == pooling(x.unsqueeze(1)).squeeze(1).shape
    (grad,) = torch.autograd.grad(value.sum(), x)
    assert grad.shape == x.shape


@pytest.mark.parametrize("pooling", ["max_pool1d", "avg_pool1d", "adaptive_max_pool1d"])
def test_the_width_after_it_is_not_that_of_the_product(pooling: str) -> None:
    text = "arguments: {in_features: int, out_features: int}\nchain:\n  - linear\n"
    text += f"  - {pooling}: 4\n  - batch_norm\n"
    assert (
        parse(text, "signals").steps[-1].settings["features"]
    )  # of three dims it leaves the channels
    with pytest.raises(SpecError, match="batch_norm needs 'features'"):
        parse(f"dims: 2\n{text}", "rows")


@pytest.mark.parametrize(
    "step", ["conv1d: {in_channels: 2, out_channels: 3, kernel_size: 1}", "dropout1d"]
)
def test_what_is_of_channels_takes_no_matrix(step: str) -> None:
    with pytest.raises(SpecError, match="dims is 2, but"):
        parse(f"dims: 2\nchain:\n  - {step}\n  - gelu\n", "rows")
