"""Results of regions that get no gradient are detached in their specs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shared import by_torch
from shared.captured import captured, outcome, texts_of
from torch import Tensor
from torch.nn import functional

from fusegen.models import FusegenBackend, backend

pytestmark = pytest.mark.slow

X = torch.randn(4, 6, dtype=torch.float64)
CLASSES = torch.tensor([0, 1, 2, 3])

#: What is done with the norms of rows beside a result with a gradient, and whether they are detached then.
SHOWN: dict[str, tuple[Callable[[Tensor], Any], bool]] = {
    "returned": (lambda norm: norm, False),
    "computed of": (lambda norm: (norm.view(-1) @ norm.view(-1)).exp(), False),
    "written": (lambda norm: torch.zeros_like(norm).copy_(norm), False),
    "detached": (lambda norm: norm.detach(), True),
    "seen and detached": (lambda norm: norm.view(-1)[1:].mean().detach(), True),
    "compared": (lambda norm: (norm > 1, norm.argmax(0)), True),
    "its shape": (lambda norm: torch.ones_like(norm), True),
}


def norms(x: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.tanh(x) * 2
    return h.exp() + h, (h * h).sum(-1, keepdim=True).sqrt()


@pytest.mark.parametrize("what", SHOWN)
def test_what_is_only_shown_is_detached(what: str) -> None:
    show, is_detached = SHOWN[what]

    def form(x: Tensor) -> Any:
        out, norm = norms(x)
        return out, show(norm)

    text = texts_of(captured(form, X.clone().requires_grad_()))[0]
    assert ("detach(" in text) == is_detached


def test_what_is_read_without_gradients_is_detached() -> None:
    def form(x: Tensor) -> Any:
        out, norm = norms(x)
        with torch.no_grad():
            shown = norm.cumsum(0)
        return out, shown

    assert "detach(" in texts_of(captured(form, X.clone().requires_grad_()))[0]


def test_a_mean_that_is_only_shown_is_one_of_what_is_detached() -> None:
    def form(x: Tensor) -> Any:
        h = torch.tanh(x) * 2
        return h.exp() + h, h.abs().sqrt().mean().detach()

    (text,) = texts_of(captured(form, X.clone().requires_grad_()))
    assert text.index("detach(x)") < text.index("mean:")


def test_a_row_of_zeros_has_the_gradient_of_eager(tmp_path: Path) -> None:
    def form(x: Tensor) -> Any:
        out, norm = norms(x)
        loss = functional.cross_entropy(out, CLASSES)
        shown.append((out.detach() * 3 - other).tanh())
        return loss, torch.where(norm > 1, out, out * 2)

    shown: list[Tensor] = []
    other = torch.randn(4, 6, dtype=torch.float64)
    x = X.index_fill(0, torch.tensor(1), 0.0)
    used = FusegenBackend(tmp_path, everything=True)
    found = outcome(torch.compile(form, backend=used), (x,))
    for value, wanted in zip(found, outcome(form, (x,)), strict=True):
        torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(*shown)
    assert not any(value.requires_grad for value in shown)
    assert any("detach(" in region.spec for region in used.report.fused)


def test_a_result_of_inputs_without_gradients_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autograd knows a package alone, all of whose results have a gradient if one of its operands has."""

    def packages(specs: Any, folder: Any, *, build: bool) -> Any:
        found, refused = by_torch.packages(specs, folder, build=build)
        for package in found.values():
            package.apply = together(package.apply)
        return found, refused

    def together(apply: Callable[..., Any]) -> Callable[..., Any]:
        @torch._dynamo.disable
        def joined(x: Tensor, **operands: Any) -> Any:
            none = sum(0 * t.sum() for t in (x, *operands.values()) if t.requires_grad)
            found = apply(x, **operands)
            return tuple(t + none for t in found) if isinstance(found, tuple) else found + none

        return joined

    monkeypatch.setattr(backend, "packages_of", packages)

    def form(x: Tensor, scale: Tensor) -> Any:
        written = torch.zeros_like(x)
        written[:, :3] = (x * scale)[:, :3]
        still = torch.linspace(0, 1, 6).to(x) + scale.detach().exp()
        return (
            (x * 2).tanh(),
            (x.exp() * scale).sigmoid(),
            (x.exp() + written).tanh() * 2,
            (x.exp() * still).tanh(),
        )

    scale = torch.linspace(-1, 1, 6, dtype=torch.float64, requires_grad=True)
    for leaf in (X, X.clone().requires_grad_()):
        used = FusegenBackend(everything=True)
        found, wanted = (run(leaf, scale) for run in (torch.compile(form, backend=used), form))
        assert used.report.fused
        assert [t.requires_grad for t in found] == [t.requires_grad for t in wanted]
        for value, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(value, other)
