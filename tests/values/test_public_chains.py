"""Chains such as public benchmarks of kernels have, against the models as they are written there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT, constructor, derive, dtypes_of, dtypes_on_devices
from shared.public_originals import PUBLIC
from torch import Tensor, nn

from fusegen import load
from fusegen.tools.check import verify

CHAINS = ROOT / "tests" / "chains"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_module_is_the_original(name: str, shaped_packages: Path) -> None:
    """The constructor, the state for a seed, the value and every gradient."""
    cls, arguments, shapes, _ = PUBLIC[name]
    fused_cls = load(name, shaped_packages).Module
    wanted, got = (constructor(c) for c in (cls, fused_cls))
    assert list(got) == list(wanted)
    torch.manual_seed(0)
    models: list[nn.Module] = [cls(*arguments).double()]
    torch.manual_seed(0)
    models.append(fused_cls(*arguments).double())
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    found: list[list[Tensor]] = []
    for model in models:
        given = [t.clone().requires_grad_() for t in inputs]
        out = model(*given)
        cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)
        found.append([out, *torch.autograd.grad(out, [*given, *model.parameters()], cotangent)])
    for expected, result in zip(*found, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "dtype", "device"), dtypes_on_devices(PUBLIC, dtypes_of("chains"))
)
def test_against_truth(name: str, dtype: torch.dtype, device: str, shaped_packages: Path) -> None:
    chain, package = derive(CHAINS / f"{name}.yaml"), load(name, shaped_packages)
    case = verify.make_case(chain, PUBLIC[name][3], training=False, device=device)
    for error in verify.compare(package, chain, case, dtype):
        assert error.within, f"{name}: {error}"
