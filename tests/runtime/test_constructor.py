"""A Module whose constructor and state_dict have what its chain does not use, or uses as a constant."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import built_alone
from torch import Tensor, nn

TEXT = """
order: 1
dims: 3
arguments:
  dim: {type: int, only: 1}
  shape: shape
  keepdim: {type: bool, default: true, only: true}
operands:
  offset: {init: zeros, shape: shape, unused: true, name: head.offset}
  scale: {kind: scalar, init: randn}
chain:
  - logsumexp: {dim: dim, keepdim: keepdim}
  - mul: scale
"""


class Head(nn.Module):
    """A module whose parameter nothing uses."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(shape))


class Original(nn.Module):
    """The model as people have it."""

    def __init__(self, dim: int, shape: tuple[int, ...], keepdim: bool = True) -> None:
        super().__init__()
        self.dim, self.keepdim = dim, keepdim
        self.scale = nn.Parameter(torch.randn(1))
        self.head = Head(shape)

    def forward(self, x: Tensor) -> Tensor:
        return torch.logsumexp(x, self.dim, self.keepdim) * self.scale


@pytest.mark.slow
def test_it_is_that_of_the_original(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("constructor")
    package = built_alone(folder, "constructor", TEXT, [torch.float64])
    torch.manual_seed(0)
    original = Original(1, (2, 3, 1)).double()
    torch.manual_seed(0)
    fused = package.Module(1, (2, 3, 1)).double()
    for name, tensor in original.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], tensor)
    fused.load_state_dict(original.state_dict())
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(copy.deepcopy(fused)(x), original(x))
    fused(x).sum().backward()
    assert fused.get_parameter("head.offset").grad is None
    for wrong in ((2, (1,)), (1, (1,), False)):
        with pytest.raises(ValueError, match=r"^constructor: (dim is 1|keepdim is True) here"):
            package.Module(*wrong)
