"""Losses, and sums and means of all elements: the end of a region, in one kernel with what comes before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from shared.captured import captured, outcome, texts_of
from torch import Tensor
from torch.nn import functional

from fusegen import chain, spec
from fusegen.models import FusegenBackend

pytestmark = pytest.mark.slow

LOGITS = torch.randn(12, 7, dtype=torch.float64)
CLASSES = torch.randint(0, 7, (12,))
X, Y = torch.randn(2, 3, 4, 6, dtype=torch.float64).unbind()


def by_torch(model: Callable[..., Any], *inputs: Tensor) -> list[tuple[str, ...]]:
    """Hold a model against eager, and derive its specs; return the ops of its regions."""
    wanted = seen(model, inputs, model)
    used = FusegenBackend(everything=True)
    found = seen(model, inputs, torch.compile(model, backend=used))
    hold_seen(found, wanted, alike=lambda value: (value.dtype, value.shape))
    for region in used.report.fused:
        chain.derive(spec.parse(region.spec, "region"))
    assert not [region.reason for region in used.report.regions if region.reason]
    return [region.ops for region in used.report.fused]


def of_language(logits: Tensor) -> Any:
    """As transformers do: logits are capped and returned, labels are shifted, some rows do not count."""
    logits = torch.tanh(logits / 30) * 30
    labels = CLASSES.masked_fill(CLASSES == 3, -100)
    return functional.cross_entropy(logits.view(-1, 7), labels, ignore_index=-100), logits


def smoothed(logits: Tensor) -> Tensor:
    return functional.cross_entropy(logits * 2, CLASSES, label_smoothing=0.1, reduction="sum")


def of_each_row(logits: Tensor) -> Tensor:
    return functional.cross_entropy(logits * 2, CLASSES, reduction="none").exp()


def of_probabilities(logits: Tensor) -> Tensor:
    return functional.nll_loss(functional.log_softmax(logits, -1), CLASSES)


def of_targets(x: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(torch.sigmoid(x) * 2, y)


def of_computed_targets(x: Tensor, y: Tensor) -> Tensor:
    target = x.exp() + 1
    return functional.smooth_l1_loss(functional.layer_norm(target * y, (6,)), target, beta=0.5)


def in_another_shape(x: Tensor, y: Tensor) -> Any:
    total = x + y
    return total, functional.layer_norm(total, (6,)).flatten().mean()


def of_probable_classes(logits: Tensor) -> Tensor:
    """With probabilities as target, and weights of classes."""
    return functional.cross_entropy(logits * 2, logits.detach().softmax(-1), LOGITS[0].exp())


def of_a_view(logits: Tensor) -> Tensor:
    """The classes are dim 1 of what the logits are seen as."""
    return functional.cross_entropy(
        (logits * 2).view(3, 4, 7), CLASSES.repeat(2)[:21].view(3, 7) % 4
    )


def of_a_gate(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, -1)
    return (up * functional.silu(gate)).view(2, -1).square().mean()


def a_penalty(x: Tensor, y: Tensor) -> Any:
    """A sum of squares beside a norm; only one value of a region is added up."""
    total = (x * y).relu()
    return total.square().sum(), total.abs().mean(), functional.layer_norm(total, (6,))


def of_a_vector(x: Tensor) -> Tensor:
    return ((x[0, 0] * 2) ** 2).sum()


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    ("form", "inputs", "ops"),
    [
        (of_language, (LOGITS,), {"div", "tanh", "mul", "cross_entropy"}),
        (smoothed, (LOGITS,), {"mul", "cross_entropy"}),
        (of_each_row, (LOGITS,), {"mul", "cross_entropy"}),
        (of_probabilities, (LOGITS,), {"log_softmax", "nll_loss"}),
        (of_probable_classes, (LOGITS,), {"mul", "cross_entropy"}),
        (of_a_view, (LOGITS,), {"mul", "cross_entropy"}),
        (of_a_gate, (X,), {"swiglu", "square", "mean"}),
        (of_targets, (X, Y), {"sigmoid", "mul", "mse_loss"}),
        (of_computed_targets, (X, Y), {"exp", "add", "mul", "layer_norm", "smooth_l1_loss"}),
        (in_another_shape, (X, Y), {"add", "layer_norm", "mean"}),
        (a_penalty, (X, Y), {"mul", "relu", "square", "sum", "abs", "layer_norm"}),
        (of_a_vector, (X,), {"mul", "pow", "sum"}),
    ],
)
def test_it_is_in_the_region(
    form: Callable[..., Any], inputs: tuple[Tensor, ...], ops: set[str]
) -> None:
    regions = by_torch(form, *inputs)
    assert ops in [set(region) for region in regions] or ops <= set(regions[0])


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    "form",
    [
        lambda x: functional.cross_entropy(x[0] * 2, CLASSES[0] % 6),
        lambda x: functional.mse_loss(Y.view(12, 6) * 2, torch.sigmoid(x) * 2),
        lambda x: functional.kl_div((x * 2).log_softmax(-1), x.softmax(-1), reduction="batchmean"),
        lambda x: (x * 2).mean((0, 1)),
        lambda x: (x * 2).sum() + 1,
        lambda x: functional.mse_loss(x * 2, x.mean(-1, keepdim=True) * torch.ones(12, 6).double()),
    ],
)
def test_what_no_spec_says_is_as_before(form: Callable[..., Any]) -> None:
    by_torch(form, X.reshape(12, 6))


@pytest.mark.usefixtures("specs_by_torch")
def test_a_loss_of_16_bits_is_of_float32() -> None:
    """As torch's of the logits in float32, but without these in memory."""

    def loss(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits.float(), CLASSES)

    (text,) = texts_of(captured(loss, LOGITS.bfloat16()))
    assert "dtypes: [bfloat16]" in text
    assert "outputs: [{name: cross_entropy_1, dtype: float32}]" in text
    found = torch.compile(loss, backend=FusegenBackend(everything=True))(LOGITS.bfloat16())
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, loss(LOGITS.bfloat16()))


def test_a_package_computes_a_loss_through_a_view(tmp_path: Path) -> None:
    """Built for bfloat16: no less exact than eager, whose logarithms are of float32 as well."""

    def loss(logits: Tensor, mask: Tensor) -> Any:
        logits = torch.tanh(logits / 30) * 30 * mask
        return functional.cross_entropy(logits.view(-1, 7).float(), CLASSES), logits

    inputs = [torch.randn(2, 6, 7) * 9, torch.rand(2, 6, 1)]
    half = [t.bfloat16() for t in inputs]
    used = FusegenBackend(tmp_path, everything=True)
    torch._dynamo.reset()
    found = outcome(torch.compile(loss, backend=used), half)
    assert [region.ops[-1] for region in used.report.fused] == ["cross_entropy"]
    truth = outcome(loss, [t.float() for t in half])
    for value, eager, true in zip(found, outcome(loss, half), truth, strict=True):
        assert (value.dtype, value.stride()) == (eager.dtype, eager.stride())
        error, usual = (float((t - true).abs().max()) for t in (value, eager))
        assert error <= 2 * usual + float(true.abs().max()) / 256
