"""Submodules keep their meaning: whatever acts when one is called acts in a generated Module too."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from random_programs.build import build_specs
from shared.model_pairs import agree, half, pair, pulling
from shared.segment_originals import SEGMENTS
from shared.torch_calls import Package
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from fusegen import load
from fusegen.runtime.submodules import no_bias

Change = Callable[[nn.Module, str], object]


class LowRank(nn.Module):
    """An adapter around a linear layer, as LoRA has it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        generator = torch.Generator().manual_seed(3)
        shapes = ((2, base.in_features), (base.out_features, 2))
        made = [torch.randn(s, generator=generator, dtype=base.weight.dtype) for s in shapes]
        self.down, self.up = nn.Parameter(made[0]), nn.Parameter(made[1])

    @property
    def weight(self) -> Tensor:  # what tools that read the layer get
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + x @ self.down.T @ self.up.T
        return out


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Squared(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.square()


def replaced(model: nn.Module, name: str, by: Callable[[Any], nn.Module]) -> None:
    setattr(model, name, by(getattr(model, name)))


def with_class(model: nn.Module, name: str) -> None:
    getattr(model, name).__class__ = Doubled


def with_forward(model: nn.Module, name: str) -> None:
    layer = getattr(model, name)
    own = layer.forward
    layer.forward = lambda x: own(x) - 1


#: What people do to a layer.
CHANGES: dict[str, Change] = {
    "forward hook": lambda m, n: getattr(m, n).register_forward_hook(lambda *a: 2 * a[-1]),
    "forward pre-hook": lambda m, n: getattr(m, n).register_forward_pre_hook(
        lambda _, given: given[0] + 1
    ),
    "backward hook": lambda m, n: getattr(m, n).register_full_backward_hook(pulling),
    "backward pre-hook": lambda m, n: getattr(m, n).register_full_backward_pre_hook(
        lambda _, given: (2 * given[0],)
    ),
    "spectral_norm": lambda m, n: spectral_norm(getattr(m, n)),
    "weight_norm": lambda m, n: weight_norm(getattr(m, n)),
    "parametrized weight_norm": lambda m, n: parametrizations.weight_norm(getattr(m, n)),
    "parametrization": lambda m, n: parametrize.register_parametrization(
        getattr(m, n), "weight", Squared()
    ),
    "parametrized bias": lambda m, n: parametrize.register_parametrization(
        getattr(m, n), "bias", Squared()
    ),
    "pruning": lambda m, n: prune.l1_unstructured(getattr(m, n), "weight", amount=0.5),
    "adapter": lambda m, n: replaced(m, n, LowRank),
    "subclass": with_class,
    "forward of the instance": with_forward,
    "no bias": lambda m, n: setattr(getattr(m, n), "bias", None),
    "a sequence": lambda m, n: replaced(m, n, lambda layer: nn.Sequential(layer, nn.Tanh())),
    "frozen": lambda m, n: getattr(m, n).requires_grad_(False),
}

#: The name of the product in each model, and of what lies inside the kernels.
PRODUCTS = {
    "matmul_gelu_softmax": "linear",
    "gemm_batchnorm_scale_softmax": "gemm",
    "matmul_swish_scale": "matmul",
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_a_changed_product(name: str, change: str, package: Package) -> None:
    """The product's layer is called, and the kernels go on after it."""
    models = pair(name, package)
    for model in models:
        torch.manual_seed(2)
        CHANGES[change](model, PRODUCTS[name])
    original, fused = models
    assert list(original.state_dict()) == list(fused.state_dict())
    agree(original, fused, torch.randn(5, 24, dtype=torch.float64))


def test_the_kernels_go_on_after_a_changed_product(package: Package) -> None:
    _, fused = pair("matmul_gelu_softmax", package)
    fused.linear.register_forward_hook(lambda *a: 2 * a[-1])  # type: ignore[union-attr]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        fused(torch.randn(5, 24, dtype=torch.float64))
    space = package("matmul_gelu_softmax")._chain.namespace
    assert f"{space}::forward" in {e.key for e in profile.key_averages()}


def test_a_layer_that_is_itself_again(package: Package) -> None:
    """What was taken off acts no longer."""
    original, fused = pair("matmul_gelu_softmax", package)
    x = torch.randn(5, 24, dtype=torch.float64)
    before = fused(x)
    hook = fused.linear.register_forward_hook(lambda *a: 2 * a[-1])  # type: ignore[union-attr]
    assert not torch.equal(fused(x), before)
    hook.remove()
    assert torch.equal(fused(x), before)
    for model in (original, fused):
        prune.l1_unstructured(model.linear, "weight", amount=0.5)
        prune.remove(model.linear, "weight")
    agree(original, fused, x)


CONSTANTS = """
order: 1
arguments: {in_channels: int, out_channels: int, slope: {type: float, default: 0.3}}
chain:
  - conv2d: {name: conv, kernel_size: 3}
  - dropout: {name: early, p: slope}
  - group_norm: {name: gn, num_groups: 2}
  - prelu: {name: act}
  - instance_norm: {name: instance, eps: 0.01}
  - dropout: {name: late, p: slope}
  - expr: "x * tanh(softplus(x)) + slope"
  - batch_norm: {name: bn, eps: 0.001, momentum: 0.2}
  - alpha_dropout: {name: alpha, p: 0.25}
  - softmax: {dim: 1}
"""


class Constants(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, slope: float = 0.3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3)
        self.early = nn.Dropout(slope)
        self.gn = nn.GroupNorm(2, out_channels)
        self.act = nn.PReLU()
        self.instance = nn.InstanceNorm2d(out_channels, eps=0.01)
        self.late = nn.Dropout(slope)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001, momentum=0.2)
        self.alpha = nn.AlphaDropout(0.25)

    def forward(self, x: Tensor) -> Tensor:
        x = self.instance(self.act(self.gn(self.early(self.conv(x)))))
        x = self.late(x)
        x = x * torch.tanh(nn.functional.softplus(x)) + self.early.p
        return torch.softmax(self.alpha(self.bn(x)), dim=1)


@pytest.fixture(scope="module")
def constants(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """A package with a submodule of every kind, and constants where a submodule has attributes."""
    folder = tmp_path_factory.mktemp("constants")
    (folder / "with_constants.yaml").write_text(CONSTANTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEGEN_NATIVE", "1")
        build_specs([folder / "with_constants.yaml"], folder / "out", dtypes=["float64"])
    return load("with_constants", folder / "out")


#: Attributes that the kernels have as constants, or that only a call heeds.
ATTRIBUTES: dict[str, Callable[[Any], object]] = {
    "nothing": lambda _: None,
    "padding_mode": lambda m: (
        setattr(m.conv, "padding_mode", "circular"),
        setattr(m.conv, "_reversed_padding_repeated_twice", [1, 1, 1, 1]),
    ),
    "stride": lambda m: setattr(m.conv, "stride", (2, 1)),
    "padding": lambda m: setattr(m.conv, "padding", "same"),
    "dilation": lambda m: setattr(m.conv, "dilation", (2, 2)),
    "num_groups": lambda m: setattr(m.gn, "num_groups", 4),
    "eps of the group norm": lambda m: setattr(m.gn, "eps", 0.3),
    "eps of the instance norm": lambda m: setattr(m.instance, "eps", 0.3),
    "running averages of the instance norm": lambda m: setattr(
        m, "instance", nn.InstanceNorm2d(4, track_running_stats=True).double().train(m.training)
    ),
    "weight of the instance norm": lambda m: setattr(
        m, "instance", nn.InstanceNorm2d(4, eps=0.01, affine=True).double()
    ),
    "eps": lambda m: setattr(m.bn, "eps", 0.2),
    "momentum": lambda m: setattr(m.bn, "momentum", 0.9),
    "hook inside": lambda m: m.act.register_forward_hook(half),
    "another activation": lambda m: setattr(m, "act", nn.ReLU()),
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("change", ATTRIBUTES)
def test_changed_attributes(change: str, training: bool, constants: ModuleType) -> None:
    made: list[Any] = []
    for kind in (Constants, constants.Module):
        torch.manual_seed(0)
        made.append(kind(3, 4).double().train(training))
    for model in made:
        for dropout in (model.early, model.late):
            dropout.p = 0.0  # what a kernel draws is not what torch draws
        model.alpha.eval() if not training else model.alpha.train()
        model.alpha = nn.AlphaDropout(0.0).train(training)
        ATTRIBUTES[change](model)
    agree(made[0], made[1], torch.randn(3, 3, 8, 9, dtype=torch.float64))


def test_a_constant_probability(constants: ModuleType) -> None:
    """The kernels drop a quarter: 0 is heeded all the same, and so is one of two that share a value."""
    model = constants.Module(3, 4).double().train()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for name in ("early", "late", "alpha"):
        changed = copy.deepcopy(model)
        assert not torch.equal(changed(x), changed(x))
        for dropout in (changed.early, changed.late, changed.alpha):
            dropout.p = 0.0
        assert torch.equal(changed(x), changed(x))
        getattr(changed, name).p = 0.5
        assert not torch.equal(changed(x), changed(x))


@pytest.mark.parametrize("name", [n for n in SEGMENTS if "dropout" in n or "norm" in n])
def test_segments_and_earlier_values_step_by_step(name: str, built_segments: Package) -> None:
    cls, arguments, shape = SEGMENTS[name][:3]
    made: list[nn.Module] = []
    for kind in (cls, built_segments(name).Module):
        torch.manual_seed(0)
        made.append(kind(*arguments).double().train())
    for model in made:
        inside = [m for m in model.children() if not hasattr(m, "in_channels")][-1]
        inside.register_forward_hook(half)
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.3
    agree(made[0], made[1], torch.randn(shape, dtype=torch.float64))


@pytest.fixture(scope="session")
def built_segments(segment_packages: Path) -> Package:
    """Gives a package of tests/segments by name."""
    return lambda name: load(name, segment_packages)


@pytest.mark.parametrize("name", ["matmul_gelu_softmax", "gemm_batchnorm_scale_softmax"])
def test_compiled_exported_and_copied(name: str, package: Package) -> None:
    """With a hook on every submodule, which torch.compile heeds where it was there first."""
    original, fused = pair(name, package)
    for model in (original, fused):
        for part in model.children():
            if not isinstance(part, nn.Softmax):
                part.register_forward_hook(half)
    x = torch.randn(5, 24, dtype=torch.float64)
    wanted = original(x)
    torch._dynamo.reset()
    compiled = torch.compile(fused, fullgraph=True, backend="eager")
    exported = torch.export.export(fused, (x,)).module()
    for model in (compiled, exported, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        torch.testing.assert_close(model(x), wanted)


def test_a_bias_that_changes_nothing() -> None:
    zeros = torch.tensor([[0.0, -0.0]])
    assert torch.equal(torch.signbit(zeros + no_bias(zeros, -1)), torch.signbit(zeros))
