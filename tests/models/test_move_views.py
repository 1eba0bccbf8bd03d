"""Views between ops: which are moved out of a region and which stay, with eager's values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from shared.captured import captured, ops_of
from torch import Tensor, nn
from torch.nn import functional

from fusegen.models import FusegenBackend
from fusegen.models.fusion_report import VIEWS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("specs_by_torch")]

TOKENS = torch.randn(2, 12, 6, dtype=torch.float64)
OTHER = torch.randn(2, 12, 6, dtype=torch.float64)
GRID = torch.randn(2, 3, 4, 6, dtype=torch.float64)
IMAGE = torch.randn(2, 6, 3, 4, dtype=torch.float64)
LAST = IMAGE.contiguous(memory_format=torch.channels_last)
ROW, CHANNEL = torch.randn(6, dtype=torch.float64), torch.randn(6, 1, 1, dtype=torch.float64)
SCORES = torch.randn(4, 2, 5, 5, dtype=torch.float64)
NORMALISED = (6,)


def fused(model: Callable[..., Any], *inputs: Tensor) -> tuple[list[tuple[str, ...]], int]:
    """Hold a model against eager; return the ops of its regions, and how many views were moved."""
    wanted = seen(model, inputs, model)
    used = FusegenBackend(everything=True)
    found = seen(model, inputs, torch.compile(model, backend=used))
    hold_seen(found, wanted, alike=Tensor.stride)
    return [region.ops for region in used.report.fused], used.report.changed[VIEWS]


def tokens_to_grid(x: Tensor, y: Tensor) -> Any:
    total = x + y
    return total, functional.layer_norm(total.view(2, 3, 4, 6), NORMALISED)


def grid_to_tokens(x: Tensor, y: Tensor) -> Tensor:
    return functional.layer_norm(x, NORMALISED).flatten(1, 2) * 2 + y


def with_a_row(x: Tensor, y: Tensor, row: Tensor) -> Tensor:
    return ((x + y) * row).reshape(-1, 6).softmax(-1)


def with_a_sample(x: Tensor, y: Tensor) -> Tensor:
    total = x * y[:, :1] + y.amax(-1, keepdim=True)
    return functional.layer_norm(total.unflatten(1, (3, 4)), NORMALISED)


def masked_by_windows(scores: Tensor, bias: Tensor) -> Tensor:
    mask = bias[:2, :1] > 0
    scores = (scores + bias[:1]).view(2, 2, 2, 5, 5)
    scores = scores.masked_fill(mask.unsqueeze(0), -100.0)
    return scores.view(-1, 2, 5, 5).softmax(dim=-1)


def last_to_tokens(x: Tensor, y: Tensor, gamma: Tensor) -> Any:
    total = x + y * gamma
    return total, functional.layer_norm(total.permute(0, 2, 3, 1), NORMALISED)


def last_to_tokens_in_steps(x: Tensor, y: Tensor) -> Any:
    total = x + y
    return functional.rms_norm(total.flatten(2).transpose(1, 2), NORMALISED, eps=1e-6), total


def grid_to_image(x: Tensor, y: Tensor) -> Any:
    normed = functional.layer_norm(x, NORMALISED).permute(0, 3, 1, 2)
    return torch.relu(normed + y), normed


def positive_dims(x: Tensor, y: Tensor) -> Tensor:
    total = (x + y).unflatten(1, (3, 4))
    return functional.normalize(total.softmax(3), dim=3) + total.mean(3, keepdim=True)


def a_choice(x: Tensor, y: Tensor) -> Tensor:
    chosen = torch.where(x > y, x, y * 2)
    return functional.layer_norm(chosen.reshape(24, 6), NORMALISED)


def undone(x: Tensor, y: Tensor) -> Any:
    """A norm with its channels second, as LayerNorm2d gives it, is seen with its channels last again."""
    first = functional.layer_norm(x + y, NORMALISED).permute(0, 2, 1)
    again = first.permute(0, 2, 1).contiguous()
    return again, functional.layer_norm(again, NORMALISED).reshape(2, 3, 4, 6).view(2, 12, 6) * 2


def by_none(x: Tensor, y: Tensor) -> Tensor:
    return functional.layer_norm((x + y)[:, None], NORMALISED)


def sizes_of_one(x: Tensor, y: Tensor) -> Tensor:
    one, other = x[:1, :1].sin(), y[:1, :1].cos()
    return functional.layer_norm((one * other).squeeze(0), NORMALISED).unsqueeze(-1) * 2


def reduced_with_a_dim_before(x: Tensor, y: Tensor) -> Any:
    total = (x + y).unsqueeze(0)
    return total.amax((2, 3), keepdim=True), torch.relu(total) * y


def mean_of_a_view(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x, y]).amax(0).mean()


@pytest.mark.parametrize(
    ("form", "inputs"),
    [
        (tokens_to_grid, (TOKENS, OTHER)),
        (grid_to_tokens, (GRID, TOKENS)),
        (with_a_row, (TOKENS, OTHER, ROW)),
        (with_a_sample, (TOKENS, OTHER)),
        (masked_by_windows, (SCORES, SCORES.roll(1))),
        (last_to_tokens, (LAST, LAST.roll(1, 1), CHANNEL)),
        (last_to_tokens_in_steps, (LAST, LAST * 2)),
        (grid_to_image, (GRID, LAST)),
        (positive_dims, (TOKENS, OTHER)),
        (a_choice, (TOKENS, OTHER)),
        (undone, (TOKENS, OTHER)),
        (by_none, (TOKENS, OTHER)),
        (sizes_of_one, (TOKENS, OTHER)),
        (reduced_with_a_dim_before, (TOKENS, OTHER)),
        (mean_of_a_view, (ROW, ROW.roll(1))),
    ],
)
def test_a_view_is_moved_and_all_is_one_region(
    form: Callable[..., Any], inputs: tuple[Tensor, ...]
) -> None:
    regions, moved = fused(form, *inputs)
    assert len(regions) == 1
    assert moved or form is undone


def other_rows(x: Tensor) -> Tensor:
    """Rows of one shape are parts of rows of the other."""
    return functional.layer_norm((x.softmax(-1) * 2).reshape(2, 72), (72,)) * 2


def a_tensor_in_another_shape(x: Tensor, y: Tensor) -> Tensor:
    """y is broadcast along one of the dims that are joined."""
    total = x + y[:, :1]
    return (total.flatten(1) * 2).softmax(-1)


def a_copy(x: Tensor, y: Tensor) -> Tensor:
    """What is transposed can be seen as one dim by a copy alone; two copies would take its place."""
    return functional.layer_norm((x + y).transpose(1, 2).reshape(2, 72) * 2, (72,))


def a_copy_before_what_is_pointwise(x: Tensor, y: Tensor) -> Tensor:
    return (x + y).transpose(1, 2).reshape(2, 72) * 2


def a_copy_of_an_input(x: Tensor, y: Tensor) -> Tensor:
    """The sum can be seen as one dim, but not what is added."""
    total = y.view(2, 6, 12) + x.transpose(1, 2)
    return (total.flatten(1) * 2).softmax(-1)


def rows_that_lie_apart(x: Tensor, y: Tensor) -> Tensor:
    """A kernel would copy rows whose elements are not beside each other."""
    return (x + y).permute(0, 2, 3, 1).softmax(-1)


def a_path_around(x: Tensor, y: Tensor) -> Tensor:
    total = (x + y).exp()
    product = total @ torch.eye(6, dtype=torch.float64)
    return functional.layer_norm((total.view(24, 6) + product.view(24, 6)) * 2, NORMALISED)


def changed_in_place(x: Tensor, y: Tensor) -> Any:
    total = x * y + 1
    flat = total.view(24, 6)
    total.mul_(2)
    return total, functional.layer_norm(flat, NORMALISED) * 2


def changed_through_the_view(x: Tensor, y: Tensor) -> Any:
    total = x * y + 1
    flat = total.view(24, 6)
    flat[0] = 0
    return total, functional.layer_norm(flat, NORMALISED) * 2


def without_gradients(x: Tensor, y: Tensor) -> Any:
    total = (x + y) * 2
    with torch.no_grad():
        flat = total.view(24, 6)
    return total, functional.layer_norm(flat, NORMALISED) * 2


def channels_of_a_norm(x: Tensor) -> Tensor:
    """The second dim is that of the channels."""
    mean, variance = torch.zeros(12, dtype=torch.float64), torch.ones(12, dtype=torch.float64)
    normed = functional.batch_norm(x, mean, variance, mean + 1, mean)
    return functional.layer_norm(normed.view(24, 6) * 2, NORMALISED)


def halves_of_rows(x: Tensor, y: Tensor) -> Tensor:
    turned = x * y + torch.cat((-x[..., 3:], x[..., :3]), -1) * y
    return (turned.transpose(1, 2) * 2).softmax(-1)


@pytest.mark.parametrize(
    ("form", "inputs"),
    [
        (other_rows, (TOKENS,)),
        (a_tensor_in_another_shape, (TOKENS, OTHER)),
        (a_copy, (TOKENS, OTHER)),
        (a_copy_before_what_is_pointwise, (TOKENS, OTHER)),
        (a_copy_of_an_input, (TOKENS, OTHER)),
        (rows_that_lie_apart, (IMAGE, IMAGE.roll(1, 1))),
        (a_path_around, (TOKENS, OTHER)),
        (changed_in_place, (TOKENS, OTHER)),
        (changed_through_the_view, (TOKENS, OTHER)),
        (without_gradients, (TOKENS, OTHER)),
        (channels_of_a_norm, (TOKENS,)),
        (halves_of_rows, (TOKENS, OTHER)),
    ],
)
def test_a_view_stays(form: Callable[..., Any], inputs: tuple[Tensor, ...]) -> None:
    _, moved = fused(form, *inputs)
    assert not moved


@pytest.mark.parametrize("reduces", [functional.softmax, functional.normalize])
def test_no_view_joins_the_rows_with_other_dims(reduces: Any) -> None:
    def form(x: Tensor, y: Tensor) -> Tensor:
        rows = reduces(x, dim=1).flatten(0, 1)
        return torch.tanh(rows * y.flatten(0, 1) + 1) * 2

    fused(form, TOKENS, OTHER)


def test_a_view_that_is_undone_without_gradients_has_none() -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        total = x + y
        with torch.no_grad():
            again = total.transpose(1, 2).transpose(1, 2)
        return again * 2 + 1, total.exp()

    fused(form, TOKENS, OTHER)


def test_who_returns_a_view_returns_a_view_of_the_same() -> None:
    def both(x: Tensor, y: Tensor) -> Any:
        total = x + y
        flat = total.view(24, 6)
        return total, flat, functional.layer_norm(flat, NORMALISED)

    used = FusegenBackend(everything=True)
    total, flat, _ = torch.compile(both, backend=used)(TOKENS, OTHER)
    assert used.report.changed[VIEWS]
    assert total.data_ptr() == flat.data_ptr()
    assert total.shape == TOKENS.shape


def test_no_view_is_left_between_blocks() -> None:
    """As in a Swin: attention in images, the rest in tokens, so that each sum has another shape."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.LayerNorm(6).double(), nn.LayerNorm(6).double()
            self.mix, self.up = nn.Linear(6, 6).double(), nn.Linear(6, 6).double()

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.mix(self.before(x))
            tokens = x.reshape(2, -1, 6)
            tokens = tokens + self.up(self.after(tokens))
            return tokens.reshape(2, 3, 4, 6)

    model = nn.Sequential(Block(), Block(), Block())
    assert ops_of(captured(model, GRID)) == 5 * [["add", "layer_norm"]]
    _, moved = fused(model, GRID)
    assert moved == 5


def test_sizes_that_change() -> None:
    """One size of a view may change from call to call."""

    def form(x: Tensor, y: Tensor) -> Tensor:
        return functional.layer_norm((x + y).reshape(-1, 3, 4, 6), NORMALISED) * 2

    used = FusegenBackend(everything=True)
    compiled = torch.compile(form, backend=used)
    for batch in (2, 3, 7):
        x, y = torch.randn(2, batch, 12, 6, dtype=torch.float64)
        torch._dynamo.mark_dynamic(x, 0)
        torch._dynamo.mark_dynamic(y, 0)
        torch.testing.assert_close(compiled(x, y), form(x, y))
    assert used.report.graphs == 1
    assert [region.ops for region in used.report.fused] == [("add", "layer_norm", "mul")]


def test_several_sizes_that_change() -> None:
    """Those that the graph is given are written as they are, a product of them as what is left."""

    def form(x: Tensor, y: Tensor) -> Any:
        total = x + y
        rows = functional.layer_norm(total.view(-1, 6), NORMALISED)
        return total, rows, total.unsqueeze(1) * 2

    used = FusegenBackend(everything=True)
    compiled = torch.compile(form, backend=used, dynamic=True)
    for batch, length in ((2, 12), (3, 24), (5, 36)):
        x, y = torch.randn(2, batch, length, 6, dtype=torch.float64)
        for found, wanted in zip(compiled(x, y), form(x, y), strict=True):
            torch.testing.assert_close(found, wanted)
    assert used.report.fused[0].ops == ("add", "layer_norm", "mul")


def test_drop_path_is_in_the_region() -> None:
    """Its mask is drawn and divided in place."""

    def dropped(x: Tensor, y: Tensor) -> Tensor:
        mask = x.new_empty((x.shape[0], 1, 1)).bernoulli_(0.5)
        mask.div_(0.5)
        return functional.layer_norm(y + x * mask, NORMALISED)

    used = FusegenBackend(everything=True)
    compiled = torch.compile(dropped, backend=used)
    torch.manual_seed(3)
    wanted = dropped(TOKENS, OTHER)
    torch.manual_seed(3)
    torch.testing.assert_close(compiled(TOKENS, OTHER), wanted)
    (region,) = used.report.fused
    assert set(region.ops) == {"div", "mul", "add", "layer_norm"}
