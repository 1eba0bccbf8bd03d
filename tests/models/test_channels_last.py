"""Convolutions in channels-last: which values are converted, with the same values, gradients and strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.captured import outcome, tidied
from torch import Tensor, fx, nn
from torch.nn import functional

from fusegen.models import channels_last
from fusegen.models.channels_last import use_channels_last
from fusegen.models.effects import effects_of
from fusegen.models.regions import find_regions

pytestmark = pytest.mark.slow  # each case is captured by torch: 8 seconds

IMAGE, KERNEL = torch.randn(2, 4, 6, 5), torch.randn(4, 4, 3, 3) / 6
VOLUME, CUBE = torch.randn(2, 3, 4, 5, 4), torch.randn(3, 3, 3, 3, 3) / 9


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution is faster in channels-last."""
    monkeypatch.setattr(channels_last, "_is_faster", lambda node: node is not None)


def residual(x: Tensor, w: Tensor) -> Tensor:
    h = functional.conv2d(x, w, padding=1).relu() * 2
    return (functional.conv2d(h, w, padding=1) + x).tanh()


def alone(x: Tensor, w: Tensor) -> Tensor:
    return functional.conv2d(x, w, padding=1).relu()


def viewed(x: Tensor, w: Tensor) -> Tensor:
    h = functional.conv2d(x, w, padding=1).relu()
    h = functional.conv2d(h, w, padding=1).relu()
    return functional.conv2d(h, w, padding=1).view(2, 120) * 3


def pooled(x: Tensor, w: Tensor) -> Tensor:
    h = functional.max_pool2d(functional.conv2d(x * 2, w, padding=1), 2)
    h = functional.conv2d(torch.cat((h, h.sigmoid()), 1), torch.cat((w, w), 1), padding=1)
    return functional.adaptive_avg_pool2d(h, 1).flatten(1)


def before_and_after(x: Tensor, w: Tensor) -> Any:
    early = (x * 3).exp()  # in the format of x, which a later convolution reads
    h = functional.conv2d(x, w, padding=1).relu()
    return early, functional.conv2d(h, w, padding=1) * x


def normalised(x: Tensor, w: Tensor) -> Tensor:
    h = functional.group_norm(functional.conv2d(x, w, padding=1), 2)
    return functional.conv2d(h, w, padding=1)


def permuted(x: Tensor, w: Tensor) -> Tensor:
    """As a ConvNeXt block: its channels are last where they are normalised, and come back."""
    for _ in range(2):
        h = functional.conv2d(x, w, padding=1).permute(0, 2, 3, 1)
        x = x + functional.layer_norm(h, (4,)).permute(0, 3, 1, 2)
    return x


def permuted_and_computed(x: Tensor, w: Tensor) -> Tensor:
    h = functional.conv2d(x, w, padding=1).permute(0, 2, 3, 1)
    return functional.conv2d((h * 2).permute(0, 3, 1, 2), w).flatten(1)


def transposed(x: Tensor, w: Tensor) -> Tensor:
    h = functional.conv_transpose2d(x, w, padding=1).sigmoid()
    return functional.conv2d(h, w, padding=1).mean((2, 3))


def of_volumes(x: Tensor, w: Tensor) -> Tensor:
    return functional.conv3d(functional.conv3d(x, w, padding=1).relu(), w, padding=1).relu()


@pytest.mark.parametrize(
    ("form", "inputs", "converted"),
    [
        (residual, (IMAGE, KERNEL), 2),
        (alone, (IMAGE, KERNEL), 0),
        (viewed, (IMAGE, KERNEL), 2),
        (pooled, (IMAGE, KERNEL), 1),
        (before_and_after, (IMAGE, KERNEL), 3),
        (normalised, (IMAGE, KERNEL), 2),
        (permuted, (IMAGE, KERNEL), 2),
        (permuted_and_computed, (IMAGE, KERNEL), 0),
        (transposed, (IMAGE, KERNEL), 2),
        (of_volumes, (VOLUME, CUBE), 2),
        (residual, (IMAGE.contiguous(memory_format=torch.channels_last), KERNEL), 0),
    ],
)
def test_forms(form: Callable[..., Any], inputs: tuple[Tensor, ...], converted: int) -> None:
    graphs: list[fx.GraphModule] = []

    def backend(module: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        del inputs
        before = sum(node.target == "contiguous" for node in module.graph.nodes)
        use_channels_last(module.graph, tidied(module))
        find_regions(module.graph, effects_of(module.graph))
        module.graph.lint()
        module.recompile()
        graphs.append(module)
        found = sum(node.target == "contiguous" for node in module.graph.nodes)
        assert found - before == converted
        return module.forward

    torch._dynamo.reset()
    wide = [t.double() for t in inputs]
    found = outcome(torch.compile(form, backend=backend), wide)
    wanted = outcome(form, wide)
    for value, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(value, other)
        assert value.stride() == other.stride()
    seen: list[bool] = []

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n.target in channels_last._CONVOLUTIONS:
                image = self.env[n.args[0]]
                last = channels_last.FORMATS[image.dim()]
                seen.append(image.is_contiguous(memory_format=last))
            return super().run_node(n)

    by_name = {"x": inputs[0], "w": inputs[1]}
    placeholders = [n for n in graphs[0].graph.nodes if n.op == "placeholder"]
    Watch(graphs[0]).run(*(by_name[n.name.split("_")[1]] for n in placeholders))
    given_so = inputs[0].stride(1) == 1
    assert seen == [bool(converted) or given_so] * len(seen)


def test_an_image_that_changes_stays() -> None:
    """A convolution of what is changed in place reads it as it is."""

    def form(x: Tensor, w: Tensor) -> Tensor:
        h = functional.conv2d(x, w, padding=1).relu()
        x.mul_(2)
        return functional.conv2d(x, w, padding=1) + h

    def backend(module: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        del inputs
        use_channels_last(module.graph, tidied(module))
        module.recompile()
        return module.forward

    torch._dynamo.reset()
    found = torch.compile(form, backend=backend)(IMAGE.clone(), KERNEL)
    torch.testing.assert_close(found, form(IMAGE.clone(), KERNEL))


def test_slow_convolutions_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))

    def backend(module: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        del inputs
        assert use_channels_last(module.graph, tidied(module)) == 0
        return module.forward

    torch._dynamo.reset()
    torch.compile(module, backend=backend)(IMAGE)
