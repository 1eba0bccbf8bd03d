"""Regions that start from the parts of a tensor, or of a sum, as the gates of recurrent cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from shared.captured import captured, tidied
from shared.model_zoo import Cell
from torch import Tensor, fx

from fusegen.models import FusegenBackend
from fusegen.models.arguments import UnfitError
from fusegen.models.effects import Effects
from fusegen.models.from_parts import leave_parts, start_from_parts
from fusegen.models.functions import PartOf
from fusegen.models.fusion_report import PARTS
from fusegen.models.region_spec import spec_of
from fusegen.models.regions import Region, find_regions

X, Y = (torch.randn(3, 8, generator=torch.Generator().manual_seed(n)) for n in (7401, 7402))
IMAGE = torch.randn(2, 8, 3, 3)


def started(function: Callable[..., Any], *given: Tensor) -> tuple[fx.GraphModule, Effects, int]:
    """Return a function's graph, and for how many regions parts were replaced."""
    module = captured(function, *given)
    effects = tidied(module)

    def fits(region: Region) -> bool:
        try:
            return bool(spec_of(region, 1, effects).text)
        except UnfitError:
            return False

    return module, effects, start_from_parts(module.graph, effects, fits)


def parts_in(module: fx.GraphModule) -> int:
    return sum(isinstance(node.target, PartOf) for node in module.graph.nodes)


def gated(i: Tensor, f: Tensor, g: Tensor, o: Tensor) -> tuple[Tensor, Tensor]:
    c = torch.sigmoid(f) + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@pytest.mark.parametrize(
    "cut",
    [
        lambda x: x.chunk(4, -1),
        lambda x: torch.split(x, 2, dim=1),
        lambda x: x.tensor_split(4, 1),
        lambda x: (x[:, :2], x[..., 2:4], x[:, 4:-2], x[:, 6:]),
        lambda x: [x.narrow(1, start, 2) for start in (0, 2, 4, 6)],
    ],
)
def test_a_sum_and_its_parts_are_in_the_region(cut: Callable[[Tensor], Any]) -> None:
    def cell(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return gated(*cut(x + y))

    module, effects, count = started(cell, X, Y)
    assert (count, parts_in(module)) == (1, 4)
    (region,) = find_regions(module.graph, effects)[0]
    text = spec_of(region, 1, effects).text
    assert '  - add: t1\n  - expr: {formula: "' in text
    assert "parts: [first, second, part3, part4]" in text
    assert not any(
        node.op == "call_method" for node in module.graph.nodes
    )  # nothing is left of the cut
    module.recompile()
    for got, wanted in zip(module(X, Y), cell(X, Y), strict=True):
        assert torch.equal(got, wanted)
    leave_parts(module.graph, effects, fused=())
    assert not parts_in(module)
    module.recompile()
    for got, wanted in zip(module(X, Y), cell(X, Y), strict=True):
        assert torch.equal(got, wanted)


def test_parts_of_channels_and_a_row_that_is_added() -> None:
    module, effects, count = started(lambda x: gated(*x.chunk(4, 1)), IMAGE)
    (region,) = find_regions(module.graph, effects)[0]
    assert count == 1 and "dim: -3" in spec_of(region, 1, effects).text
    module, effects, count = started(lambda x, y, b: gated(*(x + b + y).chunk(4, -1)), X, Y, X[0])
    (region,) = find_regions(module.graph, effects)[0]
    text = spec_of(region, 1, effects).text
    assert count == 1 and "t1: full" in text and "t2: col" in text


def read_too(x: Tensor, y: Tensor) -> Any:
    both = x + y
    return gated(*both.chunk(4, -1)), both


@pytest.mark.parametrize(
    "function", [read_too, lambda x, y: gated(*torch.add(x, y, alpha=2).chunk(4, 1))]
)
def test_a_sum_that_another_reads_is_taken_apart_as_it_is(function: Callable[..., Any]) -> None:
    module, effects, count = started(function, X, Y)
    regions, _ = find_regions(module.graph, effects)
    specs = [spec_of(region, 1, effects).text for region in regions]
    assert count == 1
    assert not any("parts:" in text and "add:" in text for text in specs)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: [t.tanh() for t in x.chunk(2, -1)],  # each a region of its own
        lambda x: torch.tanh(x[:, :3]) * x[:, 3:6].sigmoid() + x[:, 2:5],  # they overlap
        lambda x: (q := x.split([2, 6], 1))[0].tanh() * q[1][:, :2],  # of two widths
        lambda x: torch.tanh(x[:2] * x[:1]) * x[1:2],
    ],
)
def test_what_is_no_start_of_a_region_stays(other: Callable[[Tensor], Any]) -> None:
    module, _, count = started(other, X)
    assert (count, parts_in(module)) == (0, 0)


def held(function: Callable[..., Any], *given: Tensor) -> int:
    """Hold a function against eager, in float64; return for how many regions parts were replaced."""
    inputs = tuple(t.double() for t in given)
    backend = FusegenBackend(everything=True)
    found = seen(function, inputs, torch.compile(function, backend=backend))
    hold_seen(found, seen(function, inputs, function))
    return backend.report.changed[PARTS]


def changed_after_the_sum(x: Tensor, y: Tensor) -> Any:
    both = x + y
    x.mul_(2)
    return gated(*both.chunk(4, -1))


def changed_after_the_cut(x: Tensor, y: Tensor) -> Any:
    parts = (x + y).chunk(4, -1)
    x.mul_(2)
    return gated(*parts)


def changed_after_all(x: Tensor, y: Tensor) -> Any:
    found = gated(*(x + y).chunk(4, -1))
    x.mul_(2)
    return found


def changed_before(x: Tensor, y: Tensor) -> Any:
    x.mul_(2)
    return gated(*(x + y).chunk(4, -1))


def summed_without_gradients(x: Tensor, y: Tensor) -> Any:
    with torch.no_grad():
        both = x + y
    return [value * x[:, :2] for value in gated(*both.chunk(4, -1))]


def summed_in_part_without_gradients(x: Tensor, y: Tensor) -> Any:
    with torch.no_grad():
        both = x + y
    return gated(*(both + x).chunk(4, -1))


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    "function",
    [
        changed_after_the_sum,
        changed_after_the_cut,
        changed_after_all,
        changed_before,
        summed_without_gradients,
        summed_in_part_without_gradients,
    ],
)
def test_a_sum_is_computed_when_and_where_it_was(function: Callable[..., Any]) -> None:
    assert held(function, X, Y) == 1


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize("change", ["part", "whole"])
def test_what_changes_after_a_cut_starts_no_region(change: str) -> None:
    def form(x: Tensor, y: Tensor) -> Any:
        both = x + y
        first, second = both[:, :4], both[:, 4:]
        early = first.tanh() * second.exp()
        (first if change == "part" else both).mul_(2)
        return early + first.sigmoid() * second

    assert held(form, X, Y) == 0


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize("dim", [1, -1, 0])
@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 1), (2, 1, 4), (4,)])
def test_what_is_broadcast_beside_parts(dim: int, shape: tuple[int, ...]) -> None:
    """It is broadcast to the shape of a part, not of the tensor that has the parts."""

    def form(x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
        first, second = (x + y).chunk(2, dim)
        return first.sigmoid() * second.tanh() * scale.detach() + first

    whole = torch.cat([torch.randn(2, 3, 4)] * 2, dim)
    assert held(form, whole, whole.cos(), torch.randn(shape)) == 1


@pytest.mark.usefixtures("specs_by_torch")
def test_what_is_broadcast_beside_a_gate_of_halves() -> None:
    def form(x: Tensor, scale: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return first.sigmoid() * second * scale.detach() + 1

    for length in (3, 2, 5):  # from the second time on the sizes are symbols
        held(form, torch.randn(2, length, 8), torch.randn(2, 1, 4))


def test_a_part_that_nobody_reads_has_a_gradient_of_zeros(tmp_path: Path) -> None:
    """Of channels, from two tensors in two memory formats, one of which has no gradient."""

    def form(x: Tensor, y: Tensor) -> Tensor:
        first, _, third, _ = (x + y).chunk(4, 1)
        return first.sigmoid() * third.tanh() + third

    torch._dynamo.reset()
    backend = FusegenBackend(tmp_path, 1, everything=True)
    x, y = torch.randn(2, 2, 8, 3, 3, dtype=torch.float64).unbind()
    y = y.contiguous(memory_format=torch.channels_last)
    grads = []
    for run in (form, torch.compile(form, backend=backend)):
        given = x.clone().requires_grad_()
        run(given, y).sin().sum().backward()
        grads.append(given.grad)
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-12, atol=1e-12)
    assert not grads[1].view(2, 4, 2, 9)[:, 1::2].any()
    assert backend.report.changed[PARTS] == 1


def test_a_cell_is_one_region_with_one_gradient(tmp_path: Path) -> None:
    """To the second derivative; no op is left beside, and nothing puts gradients of parts together."""
    torch._dynamo.reset()
    model = Cell(8).double()
    backend = FusegenBackend(tmp_path, 2, everything=True)
    fused = torch.compile(model, backend=backend)
    drawn = [torch.randn(5, 8, dtype=torch.float64) for _ in range(3)]
    found = []
    for run in (model, fused):
        leaves = [t.clone().requires_grad_() for t in drawn]
        values = run(*leaves)
        total = sum(v.sin().sum() for v in values)
        first = torch.autograd.grad(total, [*leaves, *model.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        found.append([*values, *first, *second])
    for wanted, got in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    assert backend.report.changed[PARTS] == 1
    assert not [name for name, _ in backend.report.left if name in ("add", "chunk")]
    (region,) = backend.report.regions
    assert region.ops[0] == "add" and "part" not in region.ops
