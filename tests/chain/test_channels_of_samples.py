"""Group norms beside operands of each sample's channels: a U-Net that scales channels by a time step."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import DEVICES
from random_programs.build import build_specs
from torch import Tensor
from torch.nn import functional

from fusegen import load
from fusegen.program import Kind
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify

pytestmark = pytest.mark.slow
SPEC = """
order: 2
dims: {rank}
arguments: {{num_groups: int, num_channels: int}}
operands:
  scale: {{dims: [0, 1]}}
  shift: {{dims: [0, 1]}}
  gain: {{dims: [1]}}
chain:
  - group_norm: {{name: norm, num_groups: num_groups, features: num_channels, affine: true}}
  - expr: "x * (1 + scale) + shift * gain"
  - swish
"""
#: Samples, channels, groups, places.
SHAPES = [
    (2, 6, 3, (5, 7)),
    (3, 4, 1, (1, 1)),
    (1, 8, 4, (3, 3)),
    (33, 16, 2, (4, 8)),
    (2, 64, 8, (17, 1)),
    (5, 12, 12, (9, 2)),
    (0, 6, 3, (2, 3)),
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ModuleType]:
    folder = tmp_path_factory.mktemp("samples")
    specs = []
    for rank in (3, 4, 5):
        specs.append(folder / f"by_sample_{rank}.yaml")
        specs[-1].write_text(SPEC.format(rank=rank))
    build_specs(specs, folder / "generated", dtypes=("float64", "float32"))
    return {int(s.stem[-1]): load(s.stem, folder / "generated") for s in specs}


def test_gradients_of_16_bits_are_summed_in_float32(tmp_path: Path) -> None:
    """Those of a norm's parameters, over the samples: each sample's was rounded, and the sum may cancel."""
    path = tmp_path / "narrow.yaml"
    text = SPEC.format(rank=4).replace("  gain: {dims: [1]}\n", "").replace(" * gain", "")
    path.write_text(text.replace("order: 2", "order: 1\ndtypes: [bfloat16]"))
    build_specs([path], tmp_path / "generated", dtypes=("bfloat16",))
    chain, package = pipeline.derive(path), load("narrow", tmp_path / "generated")
    for seed in range(4):
        case = verify.make_case(chain, (31, 16, 2, 33), training=False, seed=seed)
        for error in verify.compare(package, chain, case, torch.bfloat16):
            assert error.within, error


def eager(
    x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, gain: Tensor, groups: int
) -> Tensor:
    x = functional.group_norm(x, groups, weight, bias)
    return functional.silu(x * (1 + scale) + shift * gain)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rank", [3, 4, 5])
def test_values_and_gradients_are_those_of_torch(
    rank: int, shape: Any, last: bool, device: str, packages: dict[int, ModuleType]
) -> None:
    """In either memory format, and of each operand in its own shape; second derivatives too."""
    samples, channels, groups, (height, width) = shape
    places = {3: (height * width,), 4: (height, width), 5: (height, width, 2)}[rank]
    generator = torch.Generator().manual_seed(samples)

    def drawn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device)

    x, ones = drawn(samples, channels, *places), [1] * len(places)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    operands = [drawn(channels), drawn(channels)]
    operands += [drawn(samples, channels, *ones), drawn(samples, channels, *ones)]
    operands += [drawn(channels, *ones)]
    names = ("norm_weight", "norm_bias", "scale", "shift", "gain")
    along, again = drawn(samples, channels, *places), drawn(samples, channels, *places)
    results = []
    for fused in (False, True):
        leaves = [t.detach().clone().requires_grad_() for t in (x, *operands)]
        if fused:
            named = dict(zip(names, leaves[1:], strict=True))
            value = packages[rank].apply(leaves[0], **named, num_groups=groups)
        else:
            value = eager(*leaves, groups)
        first = torch.autograd.grad(value, leaves, along, create_graph=True)
        second = torch.autograd.grad(
            [first[0], first[3]], leaves, [again, torch.ones_like(first[3])]
        )
        results.append([value, *first, *second])
    for wanted, got in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def test_they_are_read_as_one_number_for_each_channel_of_a_sample(tmp_path: Path) -> None:
    """Not written out at the activation's size, and neither are their gradients."""
    spec = tmp_path / "by_sample.yaml"
    spec.write_text(SPEC.format(rank=4))
    (segment,) = pipeline.derive(spec).segments
    assert segment.layout.axis == (-4, -3)
    assert {o.kind for o in segment.operands} == {Kind.CHANNEL}


def test_check_gives_operands_of_channels_their_own_shape(packages: dict[int, ModuleType]) -> None:
    """A norm's weight is [C], as torch's module holds it, though kernels read it by sample."""
    module = packages[4]
    spec = Path(module.__file__ or "").parents[2] / "by_sample_4.yaml"
    chain = pipeline.derive(spec)
    case = verify.make_case(chain, (3, 8, 5, 7), training=False)
    shapes = {name: tuple(t.shape) for name, t in case.operands.items()}
    assert shapes["norm_weight"] == (8,)
    assert shapes["scale"] == (3, 8, 1, 1)
    assert not [e for e in verify.compare(module, chain, case, torch.float32) if not e.within]


def test_a_weight_of_another_length_is_refused_in_its_own_shape(
    packages: dict[int, ModuleType],
) -> None:
    x, ones = torch.randn(2, 6, 3, 3), torch.ones(2, 6, 1, 1)
    with pytest.raises(ValueError, match=r"norm_weight: expected shape \(6,\), a number for each"):
        packages[4].apply(
            x,
            norm_weight=torch.ones(5),
            norm_bias=torch.ones(6),
            scale=ones,
            shift=ones,
            gain=torch.ones(6, 1, 1),
            num_groups=3,
        )
