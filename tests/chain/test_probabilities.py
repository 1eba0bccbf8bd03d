"""Cross entropies against a probability of each class, and losses of rows, weighted and then added."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import DEVICES, dtypes_on_devices
from random_programs.build import in_turn
from shared.chains_of_texts import built_texts, hold_each_shape
from torch import Tensor
from torch.nn import functional as F

from fusegen.base.errors import SpecError
from fusegen.chain import Chain
from fusegen.spec import parse
from fusegen.tools.check import verify

SMOOTHED = """
operands: {target: full, weight: channel}
chain:
  - cross_entropy: {target: target, weight: weight, label_smoothing: 0.1}
"""
#: Of each place of a sequence, the classes in dim 1; then weighted, and added up.
ROWS = """
dims: 3
operands: {target: {kind: full, gradient: false}, weight: row}
outputs: [loss, total]
chain:
  - cross_entropy: {name: loss, target: target, reduction: none}
  - mul: weight
  - sum: {name: total}
"""
#: Against an earlier value of the chain, which gets a gradient too.
OWN = """
operands: {factor: full}
chain:
  - sigmoid: {name: soft}
  - mul: factor
  - cross_entropy: {target: soft, reduction: sum}
"""
#: As most training on texts does: a loss of each token, a weight of each, and the mean.
WEIGHTED = """
operands: {target: {kind: row, dtype: int64}, classes: channel, weight: row}
chain:
  - cross_entropy: {target: target, weight: classes, reduction: none, ignore_index: 0}
  - mul: weight
  - mean
"""
TEXTS = {"soft_smoothed": SMOOTHED, "soft_rows": ROWS, "soft_own": OWN, "weighted": WEIGHTED}
MATRICES = [(1, 1), (3, 31), (31, 33), (5, 1023), (2, 9001)]
SHAPES = {
    **dict.fromkeys(TEXTS, MATRICES),
    "soft_rows": [(1, 1, 1), (2, 5, 7), (3, 33, 31)],
}


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Chain, ModuleType]]:
    """Gives the chain and the built package of each spec."""
    return built_texts(tmp_path_factory, "probabilities", TEXTS, in_turn(TEXTS))


Losses = dict[str, tuple[Chain, ModuleType]]


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(TEXTS, in_turn(TEXTS)))
def test_every_shape(name: str, dtype: torch.dtype, device: str, losses: Losses) -> None:
    hold_each_shape(losses[name], SHAPES[name], dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TEXTS)
def test_gradcheck(name: str, device: str, losses: Losses) -> None:
    chain, package = losses[name]
    verify.gradcheck(package, chain, training=False, device=device)


def in_torch(name: str) -> Callable[..., Any]:
    """Return what a package is in torch."""

    def rows(x: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(x, target, reduction="none")
        return loss, (loss * weight.reshape(loss.shape)).sum()

    def weighted(x: Tensor, target: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
        loss = F.cross_entropy(x, target, classes, reduction="none", ignore_index=0)
        return (loss * weight.reshape(loss.shape)).mean()

    return {
        "soft_smoothed": lambda x, t, w: F.cross_entropy(x, t, w, label_smoothing=0.1),
        "soft_rows": rows,
        "soft_own": lambda x, f: F.cross_entropy(x.sigmoid() * f, x.sigmoid(), reduction="sum"),
        "weighted": weighted,
    }[name]


def given(name: str, rows: int, classes: int) -> list[Tensor]:
    """Return random tensors for a package."""
    x = 3 * torch.randn(rows, classes, dtype=torch.float64)
    if name == "soft_smoothed":
        return [x, torch.randn_like(x).softmax(1), torch.rand(classes, dtype=x.dtype)]
    if name == "soft_own":
        return [x, torch.randn_like(x)]
    if name == "weighted":
        weight = torch.rand(rows, dtype=x.dtype)
        return [x, torch.randint(classes, (rows,)), torch.rand(classes, dtype=x.dtype), weight]
    x = 3 * torch.randn(rows, classes, 4, dtype=torch.float64)
    return [x, torch.randn_like(x).softmax(1), torch.rand(rows, 4, dtype=x.dtype)]


@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (4, 31), (3, 33)])
@pytest.mark.parametrize("name", TEXTS)
def test_it_is_torchs_to_the_second_derivative(
    name: str, rows: int, classes: int, losses: Losses
) -> None:
    tensors = given(name, rows, classes)
    found = []
    for function in (losses[name][1].apply, in_torch(name)):
        moving = {0, *([1] if name in ("soft_smoothed", "soft_own") else []), len(tensors) - 1}
        if name == "soft_smoothed":
            moving -= {2}  # torch has no gradient of the weights of classes either
        leaves = [t.clone().requires_grad_(n in moving) for n, t in enumerate(tensors)]
        values = function(*leaves)
        values = list(values) if isinstance(values, tuple) else [values]
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        for _ in range(2):
            total = sum((v * torch.linspace(1, 2, v.numel()).view(v.shape)).sum() for v in values)
            gradients = torch.autograd.grad(
                total, inputs, create_graph=True, allow_unused=True, materialize_grads=True
            )
            values = [*values, *gradients]
        found.append(values)
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


def test_extremes_are_torchs(losses: Losses) -> None:
    """One-hot targets, logits far apart, infinite ones and NaN: torch multiplies by a target of 0 too."""
    package = losses["soft_rows"][1]
    x = torch.tensor(
        [
            *([1e4, 0, -1e4], [0, 0, -torch.inf], [0, -torch.inf, 3], [torch.inf, 0, 0]),
            *([torch.nan, 0, 0], [1e300, -1e300, 0], [0, 0, 0], [500, 0, 0]),
        ],
        dtype=torch.float64,
    ).unsqueeze(-1)
    weight = torch.ones(len(x), 1, dtype=torch.float64)
    for one in torch.eye(3, dtype=torch.float64):
        target = one.view(1, 3, 1).expand_as(x)
        leaf, other = (x.clone().requires_grad_() for _ in range(2))
        ours = package.apply(leaf, target, weight)[0]
        wanted = F.cross_entropy(other, target, reduction="none")
        torch.testing.assert_close(ours, wanted, equal_nan=True)
        got = torch.autograd.grad(ours.sum(), leaf)[0]
        expected = torch.autograd.grad(wanted.sum(), other)[0]
        finite = expected.isfinite().all(1, keepdim=True).expand_as(expected)
        torch.testing.assert_close(got[finite], expected[finite])


def test_no_rows_are_torchs(losses: Losses) -> None:
    x, weight = torch.randn(0, 3, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    assert losses["soft_smoothed"][1].apply(x, x.clone(), weight).isnan()
    assert losses["soft_own"][1].apply(x, x.clone()) == 0


def test_a_weight_of_each_row_may_lack_the_rows_dim(losses: Losses) -> None:
    """A loss of each row has no such dim either; the gradient has the shape that was passed."""
    package = losses["weighted"][1]
    x, target, classes, weight = given("weighted", 7, 7)
    weight.requires_grad_()
    kept = weight.detach().unsqueeze(1).requires_grad_()
    one, other = (package.apply(x, target, classes, w) for w in (weight, kept))
    assert torch.equal(one, other)
    (gradient,) = torch.autograd.grad(one, weight)
    assert torch.equal(gradient.unsqueeze(1), *torch.autograd.grad(other, kept))
    with pytest.raises(ValueError, match=r"weight: expected shape \(7, 1\)"):
        package.apply(x, target, classes, torch.rand(6, dtype=x.dtype))


def test_classes_of_int32_are_those_of_int64(losses: Losses) -> None:
    package = losses["weighted"][1]
    x, target, classes, weight = given("weighted", 9, 5)
    x.requires_grad_()
    found = [package.apply(x, t, classes, weight) for t in (target, target.int())]
    assert torch.equal(*found)
    gradients = [torch.autograd.grad(value, x)[0] for value in found]
    assert torch.equal(*gradients)


CHAIN = "chain:\n  - {}\n"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (
            "operands: {t: full}\n" + CHAIN.format("cross_entropy: {target: t, ignore_index: 3}"),
            "cross_entropy takes no 'ignore_index': only a target of int64 has it",
            3,
        ),
        (
            "operands: {t: row}\n" + CHAIN.format("cross_entropy: t"),
            "declare t: {kind: row, dtype: int64}, or t: full for a probability of each class",
            3,
        ),
        (
            "operands: {t: full}\n" + CHAIN.format("nll_loss: t"),
            "'target' of nll_loss holds a whole number for each row",
            3,
        ),
        (
            "operands: {t: {kind: full, dtype: bool}}\n" + CHAIN.format("cross_entropy: t"),
            "'t' is of bool, but 'target' of cross_entropy is a number",
            3,
        ),
        (CHAIN.format("cross_entropy: 0.5"), "'target' of cross_entropy must be", 2),
    ],
)
def test_a_spec_that_cannot_be_is_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, "example")
    assert caught.value.line == line
