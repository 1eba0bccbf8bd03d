"""What of a graph kernels move instead of torch: which functions are replaced, and that nothing changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from shared.captured import captured, outcome, tidied
from torch import Tensor, fx
from torch.nn import functional

from fusegen.models import FusegenBackend
from fusegen.models import movement as pass_
from fusegen.models.arguments import name_of
from fusegen.models.fusion_report import MOVED
from fusegen.models.movement import move_by_kernels
from fusegen.models.unbound import take_apart
from fusegen.runtime import movement
from fusegen.runtime.gathered import embedding_by_columns

sys.path.insert(0, str(ROOT / "examples"))
from vision_transformers import DiTBlock, SwinBlock

IS_LARGE = pass_._is_large
X, WEIGHT, BIAS = torch.randn(3, 2, 5, 4), torch.randn(6, 4), torch.randn(6)


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor is large, and torch's functions are the kernels."""
    monkeypatch.setattr(pass_, "_is_on_gpu", lambda node: bool(node.args))
    monkeypatch.setattr(pass_, "_is_large", lambda node: bool(node.args))
    monkeypatch.setattr(movement, "_copies", {4: lambda to, x: to.copy_(x)})
    monkeypatch.setattr(movement, "_sums", {4: lambda x: x.sum(0)})
    monkeypatch.setattr(movement, "FEW", 1)
    monkeypatch.setattr(movement, "is_plain_on_gpu", lambda x: type(x) is Tensor)


def biased(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return functional.linear(x, w, b) + functional.linear(x, w)


def rolled(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    del w, b
    return torch.roll(x, (1, -2), dims=(1, 2)) * x.roll(1, 0)


def reshaped(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Of four, two are copies."""
    del w, b
    copies = x.transpose(1, 2).reshape(3, 10, 4) + x.mT.flatten(1).view(3, 10, 4)
    return copies * x.reshape(3, 10, 4) * x.flatten(1, 2)


def contiguous(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    del w, b
    return x.transpose(0, 3).contiguous().view(-1) * 2


def apart(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Three at once, which torch captures as three selections; others by their sizes."""
    del w, b
    q, k, v = x.permute(0, 2, 1, 3)
    first, second = (q @ k.mT @ v).split([2, 3], 0)
    return first.sum() * second.sum()


def multiplied(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Batches of matrices of which torch copies one: its batches are in no order."""
    del w, b
    heads = x.transpose(1, 2)
    return heads @ (x.reshape(3, 5, 4, 2) * 2)


def changed(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """What is changed through a view stays."""
    y = functional.linear(x, w, b)
    y[0] += 1
    return y * 2


@pytest.mark.parametrize(
    ("form", "functions"),
    [
        (biased, ["linear", "linear"]),
        (rolled, ["roll", "roll"]),
        (reshaped, ["compacted", "compacted"]),
        (contiguous, ["compacted"]),
        (apart, ["parts", "parts"]),
        (multiplied, ["compacted"]),
        (changed, []),
    ],
)
def test_forms(form: Callable[..., Any], functions: list[str]) -> None:
    module = captured(form, X, WEIGHT, BIAS)
    effects = tidied(module)
    take_apart(module.graph, effects, ())
    assert move_by_kernels(module.graph, effects, ()) == len(functions)
    assert (
        sorted(map(_name, module.graph.nodes))[-len(functions) or len(module.graph.nodes) :]
        == functions
    )
    module.graph.lint()
    module.recompile()
    inputs = [p.name for p in module.graph.nodes if p.op == "placeholder"]
    given = {"x": X, "w": WEIGHT, "b": BIAS}

    def call(*tensors: Tensor) -> Any:
        by_name = dict(zip(given, tensors, strict=True))
        return module(*(by_name[name.split("_")[1]] for name in inputs))[0]

    found, wanted = outcome(call, tuple(given.values())), outcome(form, tuple(given.values()))
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other)


def _name(node: fx.Node) -> str:
    """Return the name of a function of runtime/movement.py; empty for another node."""
    own = getattr(node.target, "__module__", "") == movement.__name__
    return name_of(node) if own else ""


def modulated(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Parts of a small tensor that a package reads, through views."""
    del w, b
    scale, shift = x[:, 0].chunk(2, -1)
    return x.unflatten(-1, (2, 2)).sum(-1) * scale.unsqueeze(1) + shift[:, None]


@pytest.mark.parametrize("read", [True, False])
def test_small_parts_that_packages_read(read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one copy, where a copy of each would come later."""
    monkeypatch.setattr(pass_, "_is_large", lambda node: node is None)
    module = captured(modulated, X, WEIGHT, BIAS)
    effects = tidied(module)
    names = ("mul", "add") if read else ("mul",)
    fused = {n for n in module.graph.nodes if getattr(n.target, "__name__", "") in names}
    assert move_by_kernels(module.graph, effects, fused) == read
    module.graph.lint()
    module.recompile()
    (x,) = [X for n in module.graph.nodes if n.op == "placeholder"]
    torch.testing.assert_close(module(x)[0], modulated(X, WEIGHT, BIAS))


def test_what_a_package_computes_stays() -> None:
    module = captured(biased, X, WEIGHT, BIAS)
    effects = tidied(module)
    assert move_by_kernels(module.graph, effects, set(module.graph.nodes)) == 0


@pytest.mark.slow  # packages are built
@pytest.mark.parametrize("few", [1, 1000])
@pytest.mark.parametrize("name", ["DiT", "Swin"])
def test_blocks(name: str, few: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With all that kernels would move on a GPU: the same values and gradients as eager's."""
    monkeypatch.setattr(pass_, "_is_large", IS_LARGE)
    monkeypatch.setattr(pass_, "_is_on_gpu", lambda node: pass_._first(node) is not None)
    monkeypatch.setattr(movement, "FEW", few)
    monkeypatch.setattr(movement, "_copies", {8: lambda to, x: to.copy_(x)})
    monkeypatch.setattr(movement, "_sums", {8: lambda x: x.sum(0)})
    torch.manual_seed(0)
    block = DiTBlock(32, 2) if name == "DiT" else SwinBlock(14, 32, 3, 7)
    shapes = [(3, 4, 32), (3, 32)] if name == "DiT" else [(2, 14, 14, 32)]
    block = block.double()
    given = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    backend = FusegenBackend(tmp_path, 1, everything=True)
    torch._dynamo.reset()
    results = []
    for call in (torch.compile(block, backend=backend), block):
        out = call(*given)
        leaves = [*given, *block.parameters()]
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert backend.report.changed[MOVED]
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def distances(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """A column of the table for each head, as attention adds it to its scores."""
    del b
    place = torch.arange(5, device=x.device)
    away = (place[None, :] - place[:, None]).clamp(-2, 2) + 2
    return x[:, 0, :, :1] + functional.embedding(away, w).permute(2, 0, 1)[:3]


def read_in_rows(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """The second reader wants rows; the others are given by what changes the table or its gradient."""
    del b
    place = torch.arange(5, device=x.device)
    found = functional.embedding(place[:, None] % 5, w)
    scaled = functional.embedding(place[:, None] % 5, w, scale_grad_by_freq=True)
    return found.permute(2, 0, 1).sum() + (found * 2).sum() + scaled.permute(2, 0, 1).sum()


@pytest.mark.parametrize(("form", "count"), [(distances, 1), (read_in_rows, 0)])
def test_an_embedding_of_few_columns(form: Callable[..., Any], count: int) -> None:
    module = captured(form, X, WEIGHT, BIAS)
    effects = tidied(module)
    move_by_kernels(module.graph, effects, ())
    assert [n.target for n in module.graph.nodes].count(embedding_by_columns) == count
    module.recompile()
    given = {"x": X, "w": WEIGHT}
    inputs = [p.name.split("_")[1] for p in module.graph.nodes if p.op == "placeholder"]
    found = module(*(given[name] for name in inputs))[0]
    torch.testing.assert_close(found, form(X, WEIGHT, BIAS))
