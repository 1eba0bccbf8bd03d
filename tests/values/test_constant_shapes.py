"""A value that is the same everywhere keeps its shape, and so do its gradients, which are 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import DEVICES, once, shared
from shared.vocabulary import build_for_devices
from torch import Tensor
from torch.nn import functional as F

from fusegen import load
from fusegen.toolchain import pipeline

SHAPES = {"x": (5, 7), "w": (5, 7), "bias": (7,), "factor": (5, 1), "scale": ()}
Run = Callable[..., Tensor]
#: By name: the operands, the chain, and the same by torch. `zero` is a step less itself.
CHAINS: dict[str, tuple[dict[str, str], str, Run]] = {
    "constant_kept": (
        {},
        "- amax: {dim: 1, keepdim: true}\n- expr: {formula: x - mean(x), dim: 1}\n- gelu",
        lambda x: F.gelu(0 * x.amax(1, keepdim=True)),
    ),
    "constant_softmax": (
        {"w": "full"},
        "- mul: w\n- mean: {dim: -1, keepdim: true}\n- softmax: {dim: -1}",
        lambda x, w: torch.softmax((x * w).mean(-1, keepdim=True), -1),
    ),
    "constant_softmax_summed": (
        {},
        "- mean: {dim: -1, keepdim: true}\n- softmax: {dim: -1}\n- add: 1\n- sum: {dim: -1}\n- mul: 3",
        lambda x: 3 * (torch.softmax(x.mean(-1, keepdim=True), -1) + 1).sum(-1),
    ),
    "constant_full": (
        {"w": "full"},
        "- mul: {name: earlier, other: w}\n- sub: earlier\n- add: 1",
        lambda x, w: x * w * 0 + 1,
    ),
    "constant_added_up": (
        {"w": "full"},
        "- mul: {name: earlier, other: w}\n- sub: earlier\n- add: 1\n- sum: {dim: -1}",
        lambda x, w: (x * w * 0 + 1).sum(-1),
    ),
    "constant_reduced": (  # the number 0 also stands in what says that a maximum is infinite
        {"w": "full"},
        "- mul: {name: earlier, other: w}\n- sub: earlier\n- logsumexp: {dim: -1}",
        lambda x, w: torch.logsumexp(0 * x * w, -1),
    ),
    "constant_and_row": (
        {"w": "full", "factor": "row"},
        "- mul: {name: earlier, other: w}\n- sub: earlier\n- add: factor",
        lambda x, w, factor: x * w * 0 + factor,
    ),
    "constant_and_column": (
        {"bias": "col"},
        "- sub: input\n- add: bias\n- softmax",
        lambda x, bias: torch.softmax(0 * x + bias, -1),
    ),
    "constant_dropped_and_row": (
        {"factor": "row"},
        "- mean: {name: earlier, dim: -1}\n- sub: earlier\n- mul: factor",
        lambda x, factor: 0 * x.mean(-1) * factor[..., 0],
    ),
    "constant_total": (
        {"w": "full"},
        "- mul: {name: earlier, other: w}\n- sub: earlier\n- mean",
        lambda x, w: (0 * x * w).mean(),
    ),
    "constant_loss": (
        {"scale": "scalar"},
        "- tanh: {name: earlier}\n- mse_loss: earlier\n- add: scale",
        lambda x, scale: 0 * x.mean() + scale,
    ),
    "constant_losses": (
        {},
        "- tanh: {name: earlier}\n- mse_loss: {target: earlier, reduction: none}",
        lambda x: 0 * x,
    ),
    "constant_in_the_middle": (
        {"w": "full"},
        "- amax: {dim: -1, keepdim: true}\n- softmax: {dim: -1}\n- mul: w\n- mean: {dim: -1}",
        lambda x, w: (torch.softmax(x.amax(-1, keepdim=True), -1) * w).mean(-1),
    ),
}


def specs() -> dict[str, str]:
    """Return the specs by name."""
    texts = {}
    for name, (operands, steps, _) in CHAINS.items():
        declared = "".join(f"  {n}: {kind}\n" for n, kind in operands.items())
        chain = "".join(f"  {line}\n" for line in steps.splitlines())
        texts[name] = f"{'operands:' if operands else ''}\n{declared}order: 2\nchain:\n{chain}"
    return texts


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared(tmp_path_factory) / "constant_shapes"
    once(
        tmp_path_factory,
        "constant_shapes",
        lambda: build_for_devices(folder, specs(), ["float64"]),
    )
    return folder / "generated"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CHAINS)
def test_value_and_gradients_are_those_of_torch(name: str, device: str, out: Path) -> None:
    operands, _, by_torch = CHAINS[name]
    generator = torch.Generator().manual_seed(7)
    given = [
        torch.randn(SHAPES[n], generator=generator, dtype=torch.float64).to(device)
        for n in ("x", *operands)
    ]
    results = []
    for function in (load(name, out).apply, by_torch):
        leaves = [t.clone().requires_grad_() for t in given]
        value = function(*leaves)
        cotangent = torch.linspace(1, 2, value.numel(), dtype=torch.float64, device=device)
        cotangent = cotangent.reshape(value.shape)
        first = torch.autograd.grad(
            value, leaves, cotangent, create_graph=True, materialize_grads=True
        )
        added = sum((g.square().sum() for g in first), leaves[0].sum() * 0)
        second = torch.autograd.grad(added, leaves, materialize_grads=True)
        results.append([value, *first, *second])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found.detach(), wanted.detach())


def test_the_shape_that_a_package_states_is_that_of_the_constant(tmp_path: Path) -> None:
    text = "dims: 2\narguments: {in_features: int, out_features: int}\nchain:\n  - linear\n"
    text += "  - max: {dim: 1, keepdim: true}\n"
    text += "  - expr: {formula: x - mean(x), dim: 1}\n  - gelu\n"
    path = tmp_path / "linear_max_mean_gelu.yaml"
    path.write_text(text)
    (segment,) = pipeline.derive(path).segments
    assert segment.outline == "keepdim"
    assert segment.shape_after((5, 7)) == (5, 1)
