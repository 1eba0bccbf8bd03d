"""What may be moved in a graph that changes tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared.by_torch import seen
from shared.captured import captured
from torch import Tensor
from torch.nn import functional

from fusegen.models import FusegenBackend
from fusegen.models.effects import effects_of

pytestmark = pytest.mark.slow

X, Y = torch.randn(2, 4, 6, dtype=torch.float64).unbind()


def movable(model: Any, *inputs: Tensor) -> dict[str, bool]:
    """Return which nodes of a graph may be moved, by their names in the model."""
    module = captured(model, *inputs)
    effects = effects_of(module.graph)
    called = (n for n in module.graph.nodes if n.op in ("call_function", "call_method"))
    return {node.name: effects.may_move(node) for node in called}


def test_what_the_graph_makes_may_be_read_anywhere_after_its_last_change() -> None:
    def form(x: Tensor) -> Any:
        made = torch.zeros_like(x)
        early = made * 2
        made.add_(x)
        late = made * 3
        view = made.view(-1)
        later = view * 4
        return early, late, later

    found = movable(form, X)
    assert found["late"] and found["view"] and found["later"]
    assert not found["early"] and not found["add_"]


def test_what_comes_from_outside_is_read_where_it_was() -> None:
    """It may be changed again before the backward pass, which may need the value that a package has kept."""

    def form(x: Tensor, count: Tensor) -> Any:
        count.add_(1)
        late = x * count
        return late, x * 2

    found = movable(form, X, Y.clone())
    assert not found["late"]
    assert found["mul_1"]


@pytest.mark.parametrize(
    "function", [functional.batch_norm, torch.batch_norm, torch.native_batch_norm]
)
def test_a_norm_changes_its_averages_whatever_it_is_called_by(function: Any) -> None:
    """Who reads an average before the norm stays there; the weight, which is read too, does not change."""

    def form(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor) -> Any:
        before, scaled = mean * 2, weight * 2
        if function is functional.batch_norm:
            return function(x, mean, var, weight, weight, True), before, scaled
        rest = (True, 0.1, 1e-5, *(False,) * (function is torch.batch_norm))
        return function(x, weight, weight, mean, var, *rest), before, scaled

    found = movable(form, X, *(torch.ones(6, dtype=torch.float64) for _ in range(3)))
    assert not found["before"]
    assert found["scaled"]


def test_an_embedding_with_a_largest_norm_changes_its_weight() -> None:
    def form(ids: Tensor, weight: Tensor, other: Tensor) -> Any:
        early, free = weight * 2, other * 2
        rows = functional.embedding(ids, weight, max_norm=1.0)
        return early, free, rows + functional.embedding(ids, other)

    found = movable(form, torch.tensor([0, 2]), X.clone(), Y.clone())
    assert not found["early"]
    assert found["free"]


@pytest.mark.usefixtures("specs_by_torch")
def test_who_reads_a_changed_tensor_waits_for_the_change() -> None:
    """The change waits for a region whose last op comes after the reader."""

    def form(x: Tensor, y: Tensor) -> Any:
        z = x.exp()
        made = torch.zeros_like(x)
        made.view(-1).add_(z.view(-1))
        read = (made * y + 1).tanh()
        return read, z * 3

    assert fused(form) == {("exp", "mul"), ("mul", "add", "tanh")}


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.cat([x, x]),
        torch.zeros_like,
        lambda x: torch.roll(x, 1, 0),
        lambda x: functional.avg_pool1d(x[None], 3, 1, 1)[0].cumsum(0),
    ],
)
def test_what_nobody_else_holds_is_changed_out_of_place(make: Any) -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        made = make(x)
        made += 1
        made.mul_(2)
        return made.tanh() + y.sum()

    assert fused(form) == {("add", "mul", "tanh", "add")}


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    ("change", "op"),
    [
        (functional.relu_, "relu"),
        (torch.sigmoid_, "sigmoid"),
        (lambda x: functional.elu_(x, 0.7), "elu"),
        (lambda x: torch.clamp_(x, -1, max=0.5), "clamp"),
    ],
)
def test_functions_change_a_tensor_out_of_place_too(change: Any, op: str) -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        made = x + 1
        change(made)
        return made * y

    assert fused(form) == {("add", op, "mul")}


@pytest.mark.usefixtures("specs_by_torch")
def test_a_function_changes_in_place_what_another_holds() -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        made = x + 1
        part = made[:2]
        torch.tanh_(made)
        return made * y, part * 2

    fused(form)


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    "make",
    [
        lambda z: z[:],
        lambda z: z.view(-1).view(4, 6),
        lambda z: z.contiguous(),
        lambda z: functional.dropout(z, training=False),
        lambda z: functional.alpha_dropout(z, 0.0),
    ],
)
def test_what_another_holds_is_changed_in_place(make: Any) -> None:
    """Its other readers read what they read in eager, be it before or after the change."""

    def form(x: Tensor, y: Tensor) -> Any:
        z = torch.roll(x, 1, 0)
        early = z * 3
        made = make(z)
        made += 1
        return (early + z).tanh() * y

    assert fused(form) == {("add", "tanh", "mul")}


@pytest.mark.usefixtures("specs_by_torch")
def test_parts_of_what_has_changed_see_the_next_change() -> None:
    """The first change is made out of place, and gives the tensor that the parts are of."""

    def form(x: Tensor, y: Tensor) -> Any:
        both = (x + y).mul_(0.75)
        first, second = both[:, :3], both[:, 3:]
        both.mul_(3)
        return first.tanh() * second

    assert fused(form) == {("tanh", "mul")}


@pytest.mark.usefixtures("specs_by_torch")
def test_a_choice_by_what_changes_later_is_made_before() -> None:
    """A kernel that computes the comparison would read the tensor after the change."""

    def form(x: Tensor, y: Tensor) -> Any:
        made = torch.roll(x, 1, 0)
        seen = made[:] > 0
        made.mul_(-1.0)
        return torch.where(seen, y, y.tanh()) * 2, made.exp() + 1

    assert fused(form) == {("exp", "add")}


@pytest.mark.usefixtures("specs_by_torch")
def test_a_change_without_gradients_lets_them_pass() -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        z = x * 2
        with torch.no_grad():
            z.mul_(3)
        return (z + y).tanh()

    assert fused(form) == {("add", "tanh")}


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    "seen_so",
    [
        lambda x: x.expand(4, 6),
        lambda x: x.view(-1).view(4, 6),
        lambda x: x.mean(-1, keepdim=True) * x,
        lambda x: x.unsqueeze(0).squeeze((0,)),
        lambda x: x.contiguous().expand(4, 6),  # contiguous returns x, which has one
        lambda x: x.contiguous().view(-1).view(4, 6),
    ],
)
def test_a_view_without_gradients_has_none(seen_so: Any) -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        with torch.no_grad():
            z = seen_so(x)
        return (z * y + 1).tanh()

    assert ("mul", "add", "tanh") in fused(form)


@pytest.mark.usefixtures("specs_by_torch")
def test_a_view_of_what_changes_without_gradients_is_read() -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        with torch.no_grad():
            y *= 2
            row = y.unsqueeze(0).squeeze(0)
            z = row * x
            y *= 2
            late = y.detach().mean(-1, keepdim=True) + row
        return late * 2 + 1, z

    assert ("mul", "add") in fused(form)


@pytest.mark.usefixtures("specs_by_torch")
def test_a_dim_that_is_dropped_without_gradients_has_none() -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        z = (x * y).mean(-1, keepdim=True)
        with torch.no_grad():
            row = z.squeeze((-1,))
        return (row * y.mT).tanh() + 1

    assert fused(form)


def fused(form: Any) -> set[tuple[str, ...]]:
    """Return the regions of a form, which must give what it gives in eager."""
    used = FusegenBackend(everything=True)
    compiled = torch.compile(form, backend=used)
    for got, truth in zip(seen(form, (X, Y), compiled), seen(form, (X, Y), form), strict=True):
        both: Any = (t[0] if isinstance(t, tuple) else t for t in (got, truth))
        torch.testing.assert_close(*both)
    return {region.ops for region in used.report.fused}


@pytest.mark.usefixtures("specs_by_torch")
def test_random_numbers_are_drawn_in_order() -> None:
    """The first draw waits for a region whose last op comes after the second draw."""

    def form(x: Tensor) -> Any:
        rate = x.tanh() * 2
        first = torch.bernoulli(rate.sigmoid())
        second = torch.rand(3)
        late = torch.exp(-rate) + rate
        third = late.new_empty(4, 6).uniform_()
        return (late * 2 + first).tanh(), second, torch.rand_like(late) * third

    torch.manual_seed(0)
    wanted = form(X)
    run = torch.compile(form, backend=FusegenBackend(everything=True))
    torch.manual_seed(0)
    for found, truth in zip(run(X), wanted, strict=True):
        torch.testing.assert_close(found, truth)
