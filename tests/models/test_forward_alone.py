"""Graphs that run without gradients have packages without derivatives, which compile in half the time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fusegen
from fusegen.base.errors import UserError
from fusegen.models import FusegenBackend, backend
from fusegen.spec import parse
from fusegen.tools import tune
from fusegen.tools.check import verify

pytestmark = pytest.mark.slow


def model() -> nn.Module:
    return nn.Sequential(nn.GELU(), nn.Tanh())


def orders(made: FusegenBackend) -> list[int]:
    return [parse(region.spec, "region").order for region in made.report.fused]


@pytest.mark.usefixtures("specs_by_torch")
def test_a_graph_has_the_derivatives_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = FusegenBackend(everything=True)
    run, x = torch.compile(model(), backend=made), torch.randn(4, 8)
    for without in (torch.no_grad(), torch.inference_mode()):
        with without:
            torch.testing.assert_close(run(x), model()(x))
    with torch.enable_grad():
        run(x.requires_grad_()).sum().backward()
    assert set(orders(made)[:-1]) == {0}
    assert orders(made)[-1] == 1
    names = {region.package for region in made.report.fused}
    assert len(names) == 2
    torch._dynamo.reset()
    monkeypatch.setattr(backend, "is_built", lambda *_: True)  # those with a derivative
    with torch.no_grad():
        run(x)
    assert orders(made)[-1] == 1


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize("order", [1, 2])
def test_an_order_that_is_given_is_kept(order: int) -> None:
    made = FusegenBackend(order=order, everything=True)
    with torch.no_grad():
        torch.compile(model(), backend=made)(torch.randn(4, 8))
    assert orders(made) == [order]


@pytest.mark.usefixtures("specs_by_torch")
def test_a_graph_that_switches_gradients_on_has_them() -> None:
    def switched(x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = torch.tanh(x) * torch.sigmoid(x)
        return y * 2

    made = FusegenBackend(everything=True)
    x = torch.randn(4, 8, requires_grad=True)
    with torch.no_grad():
        torch.compile(switched, backend=made)(x)
    assert 0 not in orders(made)


def test_real_packages(tmp_path: Path) -> None:
    torch._dynamo.reset()
    x = torch.randn(4, 8)
    with torch.no_grad():
        fused = fusegen.fuse(model(), x, folder=tmp_path, everything=True)
        torch.testing.assert_close(fused(x), model()(x))
    (region,) = fusegen.report(fused).fused
    (spec,) = (tmp_path / "specs").glob("*.yaml")
    assert spec.stem == region.package
    torch._dynamo.reset()
    loaded = fusegen.load_fused(copy.deepcopy(model()), tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(x), fused(x))
    assert [r.package for r in fusegen.report(loaded).fused] == [region.package]
    apply = fusegen.load(region.package, tmp_path / "generated").apply
    with pytest.raises(RuntimeError, match="generated to order 0; set `order: 1`"):
        apply(x.requires_grad_()).sum().backward()


def test_tools_that_need_derivatives_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("order: 0\nchain: [relu]\n")
    with pytest.raises(UserError, match="order: 0; give it a derivative"):
        verify.check([path], tmp_path)
    case: Any = None
    with pytest.raises(UserError, match="no backward to tune"):
        tune.tune(path, case, print)
