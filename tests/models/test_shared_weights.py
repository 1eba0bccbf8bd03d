"""Weights that several products read, as at each step of a recurrence: one tensor takes their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from fusegen.models import FusegenBackend, shared_weights
from fusegen.models.fusion_report import WEIGHTS
from fusegen.runtime.shared_weight import linear, shared

pytestmark = pytest.mark.usefixtures("specs_by_torch")

X = torch.randn(3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(6412))


class Steps(nn.Module):
    """Three weights, each read at five steps; two have a bias."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.of_x, self.of_h = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = torch.zeros_like(x[:, 0]), []
        for given in x.unbind(1):
            gate, value = (self.of_x(given) + self.of_h(h)).chunk(2, -1)
            h = torch.lerp(h, value.tanh(), gate.sigmoid())
            outputs.append(self.out(h))
        return torch.stack(outputs, 1)


Gradients = Callable[[Any, list[Tensor], Tensor], Any]


def by_both(found: Gradients, model: nn.Module) -> tuple[Any, Any, int]:
    """Return what a function gives of a model, fused and in eager, and how many weights are shared."""
    backend = FusegenBackend(order=2, everything=True)
    results = []
    for run in (torch.compile(model, backend=backend), model):
        model.zero_grad()
        results.append(found(run, [*model.parameters()], X.clone().requires_grad_()))
    return *results, backend.report.changed[WEIGHTS]


def first(run: Any, weights: list[Tensor], x: Tensor) -> Any:
    return torch.autograd.grad(run(x).sin().sum(), [x, *weights])


def second(run: Any, weights: list[Tensor], x: Tensor) -> Any:
    grads = torch.autograd.grad(run(x).sin().sum(), [x, *weights], create_graph=True)
    return grads, torch.autograd.grad(sum(g.square().sum() for g in grads), [x, *weights])


def one_after_the_other(run: Any, weights: list[Tensor], x: Tensor) -> Any:
    """Passes that ask for x alone, for one weight, from some steps, and for all."""
    y = run(x)
    of_x = torch.autograd.grad(y.sum(), x, retain_graph=True)
    of_one = torch.autograd.grad(y.sum(), weights[2], retain_graph=True)
    of_some = torch.autograd.grad(y[:, :2].cos().sum(), weights, retain_graph=True)
    return of_x, of_one, of_some, torch.autograd.grad(y.exp().sum(), [x, *weights])


def accumulated(run: Any, weights: list[Tensor], x: Tensor) -> Any:
    y = run(x)
    y.sum().backward(retain_graph=True)
    y.sin().sum().backward()
    run(x).cos().sum().backward()
    return [w.grad.clone() for w in weights if w.grad is not None]


def hooked(run: Any, weights: list[Tensor], x: Tensor) -> Any:
    """Each hook is called once, with the sum, and may change it."""
    seen: dict[int, list[Tensor]] = {n: [] for n in range(len(weights))}
    hooks = [
        w.register_hook(lambda g, n=n: (seen[n].append(g.clone()), 2 * g)[1])
        for n, w in enumerate(weights)
    ]
    run(x).sin().sum().backward()
    for hook in hooks:
        hook.remove()
    return list(seen.values()), [w.grad.clone() for w in weights if w.grad is not None]


def several_at_once(run: Any, weights: list[Tensor], x: Tensor) -> Any:
    y = run(x)
    cotangents = torch.linspace(-1, 1, 4 * y.numel(), dtype=y.dtype).view(4, *y.shape)
    return torch.autograd.grad(y, [x, *weights], cotangents, is_grads_batched=True)


def inside_another(run: Any, weights: list[Tensor], x: Tensor) -> Any:
    """A pass that runs while another one has begun to sum, over the same graph."""
    y = run(x)
    loss, inner = y.sin().sum(), []

    def begin(_: Tensor) -> None:
        hook.remove()
        inner.extend(torch.autograd.grad(loss, weights, retain_graph=True))

    hook = weights[3].register_hook(begin)  # the other two go on to earlier steps
    return torch.autograd.grad(loss, [x, *weights], retain_graph=True), inner


def after_an_error(run: Any, weights: list[Tensor], x: Tensor) -> Any:
    """What a pass has summed before it failed is in no other one's gradient."""
    loss = run(x).sin().sum()

    def fail(_: Tensor) -> None:
        raise ValueError("half way")

    hook = weights[3].register_hook(fail)
    with pytest.raises(ValueError, match="half way"):
        loss.backward(retain_graph=True)
    hook.remove()
    return torch.autograd.grad(loss, weights)


@pytest.mark.parametrize(
    "found",
    [
        first,
        second,
        one_after_the_other,
        accumulated,
        hooked,
        several_at_once,
        inside_another,
        after_an_error,
    ],
)
def test_gradients_are_those_of_eager(found: Gradients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_weights, "_LEAST_BYTES", 0)
    got, wanted, count = by_both(found, Steps().double())
    assert count == 3
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_small_weights_few_products_and_those_without_gradients_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert by_both(first, Steps().double())[2] == 0
    monkeypatch.setattr(shared_weights, "_LEAST_BYTES", 0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.product = nn.Linear(6, 6, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                seen = self.product(self.product(self.product(x)))
            return self.product(self.product(x).tanh()) * seen

    got, wanted, count = by_both(first, Twice())
    assert count == 0
    torch.testing.assert_close(got, wanted)
    without = FusegenBackend(everything=True)
    with torch.no_grad():
        torch.compile(Steps().double(), backend=without)(X)
    assert not without.report.changed[WEIGHTS]
    frozen = Steps().double()
    frozen.of_h.requires_grad_(False)

    def of_the_others(run: Any, weights: list[Tensor], x: Tensor) -> Any:
        return first(run, [w for w in weights if w.requires_grad], x)

    got, wanted, count = by_both(of_the_others, frozen)
    assert count == 2
    torch.testing.assert_close(got, wanted)


def test_gradients_are_summed_in_one_tensor() -> None:
    """No product returns a gradient of the weight to autograd."""
    weight = torch.randn(4, 6, requires_grad=True)
    one = shared(weight)
    rows = [torch.randn(2, 6, requires_grad=n == 0) for n in range(3)]
    values = [linear(x, one) for x in rows]
    came = []
    one.register_hook(came.append)
    loss = torch.stack(values).sin().sum()
    torch.autograd.grad(loss, rows[0], retain_graph=True)
    assert not getattr(one.grad_fn, "sums", ["none"])  # nobody has asked for it
    loss.backward()
    assert came in ([], [None])
    wanted = sum(v.detach().cos().t() @ x for v, x in zip(values, rows, strict=True))
    torch.testing.assert_close(weight.grad, wanted)


def test_where_others_see_the_weight_it_is_as_it_was() -> None:
    """Autocast converts a leaf once; forward mode and transforms need torch's product."""
    weight = torch.randn(4, 6, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert shared(weight) is weight
    with torch.no_grad():
        assert shared(weight) is weight
    with forward_ad.dual_level():
        assert shared(weight) is weight
    x = torch.randn(2, 6)
    found = torch.func.grad(lambda w: linear(x, shared(w)).sin().sum())(weight.detach())
    torch.testing.assert_close(found, functional.linear(x, weight).cos().t().detach() @ x)
