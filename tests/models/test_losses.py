"""Losses of classes in captured graphs: one step with what comes before, in float32 beside 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from shared.by_torch import hold_fused
from shared.captured import captured, ops_of, texts_of, tidied
from torch import Tensor, nn
from torch.nn import functional as F

from fusegen.models import FusegenBackend
from fusegen.models.cost import cost_of
from fusegen.models.regions import find_regions

X = torch.randn(6, 5, dtype=torch.float64)
IMAGE = torch.randn(2, 5, 3, 4, dtype=torch.float64)
ROWS, PLACES = torch.randint(5, (6,)), torch.randint(5, (2, 3, 4))


def capped(x: Tensor, target: Tensor) -> Tensor:
    """As Gemma's: the logits are capped in float32."""
    return F.cross_entropy(30 * torch.tanh(x.float() / 30), target, ignore_index=2)


@pytest.mark.parametrize(
    ("loss", "inputs", "lines"),
    [
        (
            capped,
            (X.bfloat16(), ROWS),
            [
                *("dtypes: [bfloat16]", "t1: {kind: row, dtype: int64}"),
                "outputs: [{name: cross_entropy_1, dtype: float32}]",
                "cross_entropy: {name: cross_entropy_1, ignore_index: 2, target: t1}",
            ],
        ),
        (
            lambda x, t, w: F.cross_entropy(2 * x, t, w, reduction="none", label_smoothing=0.1),
            (IMAGE, PLACES, torch.rand(5, dtype=X.dtype)),
            ["dims: 4", "t2: channel", "label_smoothing: 0.1, target: t1, weight: t2}"],
        ),
        (
            lambda x, t: F.cross_entropy(x.tanh(), t, reduction="sum"),
            (X, X.softmax(1)),
            ["t1: {kind: full, gradient: false}", "reduction: 'sum', target: t1}"],
        ),
        (
            lambda x: F.cross_entropy(x, (h := x.softmax(1)), reduction="none") * h.sum(),
            (X,),
            ["target: softmax_1}"],
        ),
        (
            lambda x, t: F.nll_loss(F.log_softmax(x, 1), t),
            (X, ROWS),
            ["nll_loss: {name: nll_loss_1, target: t1}"],
        ),
    ],
)
def test_a_loss_is_the_last_step(
    loss: Callable[..., Tensor], inputs: tuple[Tensor, ...], lines: list[str]
) -> None:
    (text,) = texts_of(captured(loss, *inputs))
    for line in lines:
        assert line in text, text


def test_two_losses_are_two_regions() -> None:
    def both(x: Tensor, target: Tensor) -> Tensor:
        h = x.tanh()
        return F.cross_entropy(h, target) + F.cross_entropy(2 * h, target)

    assert ops_of(captured(both, X, ROWS)) == [["tanh", "cross_entropy", "mul"]]


@pytest.mark.parametrize(
    ("loss", "target", "launches"),
    [
        (F.cross_entropy, ROWS, 2),
        (F.cross_entropy, X.softmax(1), 2),
        (F.mse_loss, X.cos(), 2),
        (F.nll_loss, ROWS, 1),
        (lambda x, _: x.sum(), X, 1),
    ],
)
def test_it_counts_as_the_ops_that_torch_runs(
    loss: Callable[..., Tensor], target: Tensor, launches: int
) -> None:
    """Between two, torch writes and reads a tensor as large as the logits."""
    module = captured(lambda x, y: loss(x, y), X, target)
    ((region,), _) = find_regions(module.graph, tidied(module))
    cost, size = cost_of(region), X.numel() * 8
    found = (cost.launches, cost.bytes_before - cost.bytes_after)
    assert found == (launches, 2 * size * (launches - 1))


class Head(nn.Module):
    """A loss beside what is shown of the logits, which is computed after it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 7)
        self.loss = nn.CrossEntropyLoss(weight=torch.rand(7), label_smoothing=0.2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        logits = self.head(x).tanh()
        loss = self.loss(logits, ROWS)
        return loss, logits.softmax(-1), logits.argmax(-1)


class Distilled(nn.Module):
    """The target is the softmax of another head, which learns too."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(5, 7), nn.Linear(5, 7)

    def forward(self, x: Tensor) -> Tensor:
        return F.cross_entropy(self.one(x) / 2, self.other(x).softmax(-1)) * 4


class Segmented(nn.Module):
    """A loss of each place, weighted; two losses of the same logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv(x)
        places = F.cross_entropy(logits.relu(), PLACES, reduction="none", ignore_index=1)
        return (places * x[:, 0]).mean() + F.nll_loss(logits.log_softmax(1), PLACES)


MODELS: dict[str, tuple[type[nn.Module], Tensor, set[str]]] = {
    "head": (Head, X, {"tanh", "cross_entropy", "softmax", "argmax"}),
    "distilled": (Distilled, X, {"div", "cross_entropy"}),
    "segmented": (Segmented, IMAGE, {"relu", "cross_entropy", "log_softmax", "nll_loss"}),
}


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize("name", MODELS)
def test_a_fused_model_is_the_model(name: str) -> None:
    hold_fused(*MODELS[name])


def test_a_class_that_is_none_is_an_error_as_in_torch(tmp_path: Path) -> None:
    def loss(x: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(x * 2, target, ignore_index=7)

    run = torch.compile(loss, backend=FusegenBackend(tmp_path, everything=True))
    classes = PLACES.clone()
    classes[0] = 7
    torch.testing.assert_close(run(IMAGE, classes), loss(IMAGE, classes))
    for wrong in (5, -1):
        classes[1] = wrong
        for one in (run, loss):
            with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
                one(IMAGE, classes)
