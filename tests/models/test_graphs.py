"""Graphs that are easy to get wrong: values, gradients and side effects against the same graph in eager.

No package is compiled: torch computes each spec, in float64, so that only the graph can be wrong.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from shared.graph_cases import CASES, IMAGE, SQUARE, X, Y
from shared.model_zoo import ZOO
from torch import Tensor, nn
from torch.nn import functional

from fusegen.models import FusegenBackend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("specs_by_torch"),
]  # together they take 20 seconds


@pytest.mark.parametrize("name", CASES)
def test_a_fused_graph_is_the_graph(name: str) -> None:
    made, inputs = CASES[name]
    model = made() if isinstance(made, type) else made
    other = copy.deepcopy(model)
    wanted = seen(model, inputs, model)
    found = seen(other, inputs, torch.compile(other, backend=FusegenBackend(everything=True)))
    hold_seen(found, wanted, equal_nan=True)


@pytest.mark.parametrize("name", ZOO)
def test_a_fused_model_is_the_model(name: str) -> None:
    """In evaluation, where dropout drops nothing, and batch norm moves no averages."""
    torch.manual_seed(0)
    made, shapes = ZOO[name]
    model = made().double().eval()
    inputs = tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)
    other = copy.deepcopy(model)
    wanted = seen(model, inputs, model)
    used = FusegenBackend(everything=True)
    found = seen(other, inputs, torch.compile(other, backend=used))
    for got, truth in zip(found, wanted, strict=True):
        got, truth = (t[0] if isinstance(t, tuple) else t for t in (got, truth))
        torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-11)
    assert used.report.fused
    assert not [region.reason for region in used.report.regions if region.reason]


@pytest.mark.parametrize("train", [True, False])
def test_a_batch_norm_without_a_weight(train: bool) -> None:
    """It has one of ones, and is fused; it moves its averages as in eager."""
    norm = nn.BatchNorm2d(3, affine=False, momentum=0.3)
    model = nn.Sequential(norm, nn.ReLU(), nn.Tanh()).double().train(train)
    other, used = copy.deepcopy(model), FusegenBackend(everything=True)
    compiled = torch.compile(other, backend=used)
    for _ in range(2):
        inputs = (torch.randn(2, 3, 5, 7, dtype=torch.float64) + 1,)
        hold_seen(seen(other, inputs, compiled), seen(model, inputs, model))
    (region,) = used.report.fused
    assert region.ops == ("batch_norm", "relu", "tanh")


@pytest.mark.parametrize("train", [True, False])
def test_a_batch_norm_without_a_weight_under_autocast(train: bool) -> None:
    """What it is given has the dtype of its averages, as torch's kernel asks for, whether fused or not."""
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False), nn.Tanh()).train(train)
    for everything in (True, False):
        torch._dynamo.reset()
        other, used = copy.deepcopy(model), FusegenBackend(everything=everything)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = torch.compile(other, backend=used)(x := torch.randn(5, 6))
            wanted = copy.deepcopy(model)(x)
        assert found.dtype is wanted.dtype is torch.bfloat16
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("reads", [True, False])
def test_a_batch_norm_that_is_called_twice(train: bool, reads: bool) -> None:
    """Its averages move in the order of the calls; only where another reads them does it stay as it is."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6, momentum=0.3)

        def forward(self, x: Tensor, y: Tensor) -> Any:
            last = self.norm(y).tanh()
            both = torch.relu(self.norm(torch.relu(self.norm(x) + 1))), last
            return (*both, self.norm.running_mean * 2) if reads else both

    model = Twice().double().train(train)
    other, used = copy.deepcopy(model), FusegenBackend(everything=True)
    compiled = torch.compile(other, backend=used)
    for _ in range(2):
        inputs = tuple(torch.randn(5, 6, dtype=torch.float64) for _ in range(2))
        hold_seen(seen(other, inputs, compiled), seen(model, inputs, model))
    norms = [region.ops.count("batch_norm") for region in used.report.fused]
    assert sum(norms) == (0 if reads else 3)


def test_sizes_that_change() -> None:
    """A graph with symbols for sizes, among them those that a rotation and a view take."""
    model = ZOO["decoder"][0]().double()
    used = FusegenBackend(everything=True)
    compiled = torch.compile(model, backend=used, dynamic=True)
    for batch, length in ((2, 8), (3, 5), (5, 11)):
        x = torch.randn(batch, length, 32, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), model(x))
    assert used.report.graphs == 1 and used.report.fused


def test_the_report_says_what_packages_compute() -> None:
    """What a package computes itself is not left, and what computes nothing is not said to be alone."""

    def gated(x: Tensor, gate: Tensor, index: Tensor) -> Any:
        small = torch.sigmoid(gate)
        index += 1
        return x.double() @ (x * small), functional.dropout(x, 0.0), x.reshape(-1)

    used = FusegenBackend(everything=True)
    torch.compile(gated, backend=used)(SQUARE, SQUARE[:1, :1], torch.arange(3))
    (region,) = used.report.fused
    assert region.ops == ("sigmoid", "mul")
    assert used.report.left == {
        ("iadd", "its value is of int64, and kernels compute floating-point numbers"): 1,
        ("double", "it computes nothing"): 1,
        ("matmul", "a product or a convolution, which torch computes"): 1,
        ("dropout", "it computes nothing"): 1,
        ("reshape", "a view or a selection, which computes nothing"): 1,
    }


def test_a_comparison_in_a_kernel_is_not_computed_again() -> None:
    def chosen(x: Tensor) -> Tensor:
        return torch.where(x > 0, x * 2, x.exp())

    used, graphs = FusegenBackend(everything=True), []

    def look(module: Any, inputs: Any) -> Any:
        forward = used(module, inputs)
        graphs.append(forward.__self__.graph)  # type: ignore[attr-defined]  # a bound method
        return forward

    torch.compile(chosen, backend=look)(X)
    called = [n for n in graphs[0].nodes if n.op in ("call_function", "call_method")]
    assert len(called) == 1
    assert not used.report.left


def test_one_op_that_no_spec_says_is_left_alone() -> None:
    def tricked(x: Tensor, y: Tensor) -> Tensor:
        return (x * 2).tanh() + y**0

    used = FusegenBackend(everything=True)
    torch.compile(tricked, backend=used)(X, Y)
    assert [region.ops for region in used.report.fused] == [("mul", "tanh", "add")]
    ((name, reason),) = used.report.left
    assert name == "pow"
    assert "does not depend on x" in reason


def test_a_product_with_0_is_torchs() -> None:
    """It is NaN where the other factor is infinite."""

    def unused(x: Tensor, y: Tensor) -> Tensor:
        return (x * 2).tanh() + 0 * y

    used, infinite = FusegenBackend(everything=True), Y / 0
    found = torch.compile(unused, backend=used)(X, infinite)
    assert torch.equal(found.isnan(), unused(X, infinite).isnan()) and found.isnan().all()
    assert [region.ops for region in used.report.fused] == [("mul", "tanh", "mul", "add")]


def test_numbers_of_modules_are_known_though_sizes_change() -> None:
    """With dynamic=True torch makes a symbol of each number; one that changes is compiled anew."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.factor = nn.BatchNorm2d(4, dtype=torch.float64), 0.3

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x).relu() + (x * self.factor).tanh()

    model, used = Scaled(), FusegenBackend(everything=True)
    fused = copy.deepcopy(model)
    compiled = torch.compile(fused, backend=used, dynamic=True)
    for eps, factor in ((1e-5, 0.3), (1e-2, 0.3), (1e-2, 0.7)):
        for each in (model, fused):
            each.norm.eps, each.factor = eps, factor
        torch.testing.assert_close(compiled(IMAGE), model(IMAGE))
    assert used.report.fused[0].ops[:2] == ("batch_norm", "relu")


def test_inputs_that_share_memory() -> None:
    def changed(a: Tensor, b: Tensor) -> Tensor:
        twice = b * 2
        a.add_(1)
        return twice + 1

    compiled = torch.compile(changed, backend=FusegenBackend(everything=True))
    one, other = X.clone(), X.clone()
    torch.testing.assert_close(compiled(one, one.view(8, 4)), changed(other, other.view(8, 4)))


def test_most_of_them_are_fused() -> None:
    """Else the cases above would hold for nothing."""
    fused = 0
    for made, inputs in CASES.values():
        made_backend = FusegenBackend(everything=True)
        model = made() if isinstance(made, type) else made
        torch.compile(model, backend=made_backend)(*(t.clone() for t in inputs))
        fused += bool(made_backend.report.fused)
    assert fused > len(CASES) / 2


def test_options_are_checked() -> None:
    for options in ({"rest": "nothing"}, {"order": 7}):
        with pytest.raises(Exception, match=r"rest is|order is"):
            FusegenBackend(**options)


def test_the_report_says_why_what_changes_a_tensor_is_left() -> None:
    """It names what a user can change: the mode, the assignment, `out=`, or the op in place."""

    def changing(x: Tensor) -> Tensor:
        y = torch.exp(x) + 1
        y[x > 0] = 1.0
        z = torch.tanh(x)
        z[:, :1].mul_(3).add_(1)
        with torch.no_grad():
            torch.mul(x, 2, out=(out := torch.empty_like(x)))
        return y.log() + z * out

    used = FusegenBackend(everything=True)
    torch.compile(changing, backend=used)(SQUARE)
    reasons: dict[str, set[str]] = {}
    for name, reason in used.report.left:
        reasons.setdefault(reason, set()).add(name)
    of_mode, of_part, of_out, in_place, later = (
        next(names for reason, names in reasons.items() if part in reason)
        for part in ("torch.no_grad", "torch.where", "out=", "as x = x * 2", "reads or gives")
    )
    assert (of_part, of_out, in_place) == ({"setitem"}, {"mul"}, {"mul_", "add_"})
    assert of_mode == {"_set_grad_enabled"} and later == {"add", "tanh"}
