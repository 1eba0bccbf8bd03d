"""Where 0 is chosen there is no gradient, whatever it is multiplied with: means of nothing, roots of relu."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DEVICES, once, shared
from shared.vocabulary import build_for_devices
from torch import Tensor
from torch.nn import functional as F

from fusegen import load

CLASSES = "operands: {target: {kind: row, dtype: int64}}\norder: 1\nchain:\n"
WEIGHTED = "operands: {target: {kind: row, dtype: int64}, weight: channel}\norder: 1\nchain:\n"
IMAGES = f"dims: 4\n{WEIGHTED}"
GIVEN = "{target: target, weight: weight}"
SMOOTHED = "{target: target, weight: weight, label_smoothing: 0.1}"
#: Means over rows by their class: the chain, the shape of x, and the same by torch.
MEANS: dict[str, tuple[str, tuple[int, ...], Callable[..., Tensor]]] = {
    "mean_cross_entropy": (
        f"{CLASSES}  - cross_entropy: target\n",
        (5, 7),
        F.cross_entropy,
    ),
    "mean_nll": (f"{CLASSES}  - nll_loss: target\n", (5, 7), F.nll_loss),
    "mean_weighted": (f"{WEIGHTED}  - cross_entropy: {GIVEN}\n", (5, 7), F.cross_entropy),
    "mean_nll_weighted": (f"{WEIGHTED}  - nll_loss: {GIVEN}\n", (5, 7), F.nll_loss),
    "mean_smoothed": (
        f"{WEIGHTED}  - cross_entropy: {SMOOTHED}\n",
        (5, 7),
        lambda x, t, w: F.cross_entropy(x, t, w, label_smoothing=0.1),
    ),
    "mean_image": (f"{IMAGES}  - cross_entropy: {GIVEN}\n", (2, 5, 3, 4), F.cross_entropy),
    "mean_after_gelu": (
        f"{CLASSES}  - gelu\n  - cross_entropy: target\n",
        (5, 7),
        lambda x, t: F.cross_entropy(F.gelu(x), t),
    ),
}
#: Chains whose gradient is chosen to be 0 where the cotangent is infinite.
CHOICES: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "root_of_relu": ("  - relu\n  - sqrt\n", lambda x: F.relu(x).sqrt()),
    "log_of_relu": ("  - relu\n  - log\n", lambda x: F.relu(x).log()),
    "root_in_a_formula": (
        '  - expr: "sqrt(where(x > 0, x, 0))"\n',
        lambda x: torch.where(x > 0, x, 0).sqrt(),
    ),
    "root_beside_x": (
        '  - expr: "x + sqrt(where(x > 0, x, 0)) * x"\n',
        lambda x: x + F.relu(x).sqrt() * x,
    ),
    "softmax_of_roots": (
        "  - relu\n  - sqrt\n  - softmax: {dim: -1}\n",
        lambda x: torch.softmax(F.relu(x).sqrt(), -1),
    ),
    "norm_of_roots": (
        "  - relu\n  - sqrt\n  - layer_norm\n",
        lambda x: F.layer_norm(F.relu(x).sqrt(), x.shape[-1:]),
    ),
}
#: Those that have a second derivative.
TWICE = ("root_of_relu", "root_in_a_formula")


def specs() -> dict[str, str]:
    """Return the specs by name."""
    chosen = {
        name: f"order: {2 if name in TWICE else 1}\nchain:\n{text}"
        for name, (text, _) in CHOICES.items()
    }
    return {name: text for name, (text, *_) in MEANS.items()} | chosen


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared(tmp_path_factory) / "empty_means"
    dtypes = dict.fromkeys(MEANS, ("float64", "float32")) | dict.fromkeys(CHOICES, ("float64",))
    once(tmp_path_factory, "empty_means", lambda: build_for_devices(folder, specs(), dtypes))
    return folder / "generated"


def of_both(
    ours: Callable[..., Tensor], by_torch: Callable[..., Tensor], x: Tensor, *given: Any
) -> list[tuple[Tensor, Tensor]]:
    """Return the value and the gradient by x, of both."""
    results = []
    for function in (ours, by_torch):
        leaf = x.clone().requires_grad_()
        value = function(leaf, *given)
        results.append([value.detach(), *torch.autograd.grad(value.sum(), leaf)])
    return list(zip(*results, strict=True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("weights", ["ones", "zeros"])
@pytest.mark.parametrize("ignored", [True, False], ids=["all ignored", "one ignored"])
@pytest.mark.parametrize("name", MEANS)
def test_a_mean_over_nothing_has_the_gradient_of_torch(
    name: str, ignored: bool, weights: str, dtype: torch.dtype, device: str, out: Path
) -> None:
    text, shape, by_torch = MEANS[name]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator, dtype=dtype).to(device)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator).to(device)
    target.flatten()[: target.numel() if ignored else 1] = -100
    given: list[Tensor] = [target]
    if "weight" in text:
        given.append(getattr(torch, weights)(shape[1], dtype=dtype, device=device))
    apply = load(name, out).apply
    rows = target.reshape(shape[0], *shape[2:])
    ours = [rows, *(w.reshape(-1, *[1] * (len(shape) - 2)) for w in given[1:])]
    for found, wanted in of_both(
        lambda leaf, *_: apply(leaf, *ours), lambda leaf, *_: by_torch(leaf, *given), x
    ):
        torch.testing.assert_close(found, wanted, equal_nan=True)
    if ignored:
        value, gradient = (
            pair[0]
            for pair in of_both(
                lambda leaf: apply(leaf, *ours), lambda leaf: by_torch(leaf, *given), x
            )
        )
        assert math.isnan(value)
        assert not gradient.any()


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_chosen_to_be_0_hides_an_infinite_cotangent(name: str, out: Path) -> None:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for found, wanted in of_both(load(name, out).apply, CHOICES[name][1], x):
        assert not found.isnan().any()
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", TWICE)
def test_the_second_derivative_is_hidden_too(name: str, out: Path) -> None:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    results = []
    for function in (load(name, out).apply, CHOICES[name][1]):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf).square().sum(), leaf, create_graph=True)
        results.append(torch.autograd.grad(gradient.sum(), leaf)[0])
    hidden = x <= 0
    assert not results[0][hidden].any()
    torch.testing.assert_close(results[0][~hidden], results[1][~hidden])
