"""A tensor whose gradient is 0 everywhere gets zeros, as in torch; one that autograd does not reach, none.

A value that later segments or chains only compare or detach is such a one: zeros would be NaN where its
derivative is infinite.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from conftest import once, shared
from shared.vocabulary import build_for_devices
from torch import Tensor, nn

from fusegen import load

SPEC = """
order: 1
dtypes: [float64]
operands: {flat: col, held: col, bound: col, late: {kind: col, gradient: false}}
chain:
  - expr: {name: one, formula: "sign(x * flat) + x + detach(held) + late"}
  - expr: "x + where(bound < one, 1, 0)"
"""

#: In rows of zeros the derivative of `size` is infinite. Each of the last three takes other rows or columns.
SEGMENTS = """
order: 2
dims: 3
dtypes: [float64]
operands: {w: col}
chain:
  - expr: {name: size, formula: "sqrt(sum(x**2))", dim: -1}
  - expr: {name: h, formula: "tanh(input) * w"}
  - softmax: {name: soft, dim: 1}
  - expr: {name: scaled, formula: "where(size > 0.5, x, 2 * x) + detach(size)"}
  - expr: {name: held, formula: "size * x"}
  - softmax: {name: front, dim: 1}
  - expr: "scaled + where(held > front, 1, 0)"
"""
CHAINS = """
arguments: {width: int}
order: 1
dims: 3
dtypes: [float64]
chain:
  - expr: {name: size, formula: "sqrt(sum(x**2)) + x"}
  - expr: {name: h, formula: "tanh(input)"}
  - linear: {in_features: width, out_features: width}
  - expr: {name: first, formula: "where(size > 0.5, x, 2 * x) + detach(size)"}
  - linear: {name: second, in_features: width, out_features: width}
  - expr: "x + where(first > x, 1, 0) * detach(size)"
"""
TEXTS = {"signs": SPEC, "still_segments": SEGMENTS, "still_chains": CHAINS}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    folder = shared(tmp_path_factory) / "zero_gradients"
    dtypes = dict.fromkeys(TEXTS, ("float64",))
    once(tmp_path_factory, "zero_gradients", lambda: build_for_devices(folder, TEXTS, dtypes))
    return {name: load(name, folder / "generated") for name in TEXTS}


def eager(x: Tensor, flat: Tensor, held: Tensor, bound: Tensor, late: Tensor) -> Tensor:
    one = torch.sign(x * flat) + x + held.detach() + late
    return one + torch.where(bound < one, 1.0, 0.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_as_in_torch(packages: dict[str, ModuleType], compiled: bool) -> None:
    apply = packages["signs"].apply
    torch.manual_seed(0)
    x = torch.randn(5, 4, dtype=torch.float64)
    others = [torch.randn(4, dtype=torch.float64) for _ in range(4)]
    call = torch.compile(apply, backend="aot_eager") if compiled else apply
    found = []
    for function in (call, eager):
        leaves = [t.clone().requires_grad_(t is not others[3]) for t in (x, *others)]
        y = function(*leaves)
        gradients = torch.autograd.grad(y.square().sum(), leaves[:4], allow_unused=True)
        found.append((y.detach(), *gradients))
    (y, grad_x, *rest), (wanted, wanted_x, *wanted_rest) = found
    torch.testing.assert_close((y, grad_x), (wanted, wanted_x))
    assert not wanted_rest[0].any() and not rest[0].any()
    if not compiled:  # AOTAutograd fills zeros for all
        assert wanted_rest[1:] == rest[1:] == [None, None]


def by_segments(x: Tensor, w: Tensor) -> Tensor:
    size = x.square().sum(-1, keepdim=True).sqrt()
    soft = (x.tanh() * w).softmax(1)
    scaled = torch.where(size > 0.5, soft, 2 * soft) + size.detach()
    held = size * scaled
    return scaled + torch.where(held > held.softmax(1), 1.0, 0.0)


class ByChains(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        size = x.square().sum(-1, keepdim=True).sqrt() + x
        y = self.linear(x.tanh())
        first = torch.where(size > 0.5, y, 2 * y) + size.detach()
        y = self.second(first)
        return y + torch.where(first > y, 1.0, 0.0) * size.detach()


def rows_of_zeros() -> Tensor:
    """Return an x of which some rows are padding."""
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    x[0, 1], x[2, 3] = 0.0, 0.0
    return x.requires_grad_()


@pytest.mark.parametrize("compiled", [False, True])
def test_what_later_segments_compare(packages: dict[str, ModuleType], compiled: bool) -> None:
    """Values and gradients of two orders; the second is of h, and finite too."""
    apply = packages["still_segments"].apply
    torch.manual_seed(0)
    x, w = rows_of_zeros(), torch.randn(5, dtype=torch.float64, requires_grad=True)
    call = torch.compile(apply, backend="aot_eager") if compiled else apply
    found = []
    for function in (call, by_segments):
        y = function(x, w)
        first = torch.autograd.grad(y.sin().sum(), [x, w], create_graph=not compiled)
        found.append([y, *first])
        if not compiled:
            found[-1] += torch.autograd.grad(sum(g.square().sum() for g in first), [x, w])
    assert all(t.isfinite().all() for t in found[1])
    torch.testing.assert_close(*found)


def test_what_later_chains_compare(packages: dict[str, ModuleType]) -> None:
    package = packages["still_chains"]
    torch.manual_seed(0)
    x, original = rows_of_zeros(), ByChains(5).double()
    module = package.Module(5).double()
    module.load_state_dict(original.state_dict())
    found = []
    for model in (module, original):
        y = model(x)
        found.append([y, *torch.autograd.grad(y.sin().sum(), [x, *model.parameters()])])
    assert all(t.isfinite().all() for t in found[1])
    torch.testing.assert_close(*found)
