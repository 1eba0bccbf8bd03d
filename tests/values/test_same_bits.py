"""The same bits from run to run; elements and rows also on any number of threads (docs/evidence.md)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, NAMES, dtype_name
from shared.threads import threads
from torch import Tensor

from fusegen.chain import Chain
from fusegen.tools.check import verify
from fusegen.tools.check.compare import each

#: Many short rows, odd ones, few long ones whose blocks threads share, and one of them.
SHAPES = {
    "cpu": [(300, 64), (67, 1025), (3, 70_001)],
    "cuda": [
        (300, 64),
        (67, 1025),
        (1000, 33),
        (9, 4096),
        (9, 40_000),
        (3, 70_001),
        (2, 2**18 + 8),
    ],
}
Derived = Callable[[str], Chain]
Package = Callable[[str], ModuleType]


def bits(package: ModuleType, chain: Chain, case: verify.Case, dtype: torch.dtype) -> list[bytes]:
    """Return the bits of the values, of the gradients and of the gradients of these."""
    moving = [True, *(o.differentiable for o in chain.operands)]
    leaves = [
        (t.to(dtype) if t.is_floating_point() else t).detach().requires_grad_(m)
        for t, m in zip([case.x, *case.operands.values()], moving, strict=True)
    ]
    named = dict(zip(case.operands, leaves[1:], strict=True))
    values = each(package.apply(leaves[0], **named, **case.options))
    wanted = [leaf for leaf, moves in zip(leaves, moving, strict=True) if moves]
    along = [
        torch.linspace(-1, 1, v.numel(), device=v.device).reshape(v.shape).to(dtype) for v in values
    ]
    grads = torch.autograd.grad(values, wanted, along, create_graph=True)
    slopes = [g for g in grads if g.requires_grad]
    second = torch.autograd.grad(slopes, wanted, [g.detach() for g in slopes], allow_unused=True)
    return [_of(t) for t in (*values, *grads, *second) if t is not None]


def _of(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=dtype_name)
@pytest.mark.parametrize("name", NAMES)
def test_from_run_to_run(
    name: str, dtype: torch.dtype, device: str, package: Package, derived: Derived
) -> None:
    """New memory holds NaN before the second run."""
    chain = derived(name)
    for shape, count in itertools.product(SHAPES[device], (1, 3) if device == "cpu" else (1,)):
        case = verify.make_case(chain, shape, training=len(chain.modes) == 2, device=device)
        with threads(count):
            first = bits(package(name), chain, case, dtype)
            spoiled = [torch.full_like(t, float("nan")) for t in (case.x,) * 4]
            del spoiled
            assert bits(package(name), chain, case, dtype) == first, f"{shape}, {count} threads"


@pytest.mark.parametrize(
    "name", ["matmul_gelu_softmax", "gated_rms_norm", "matmul_dropout_softmax"]
)
def test_elements_and_rows_on_any_number_of_threads(
    name: str, package: Package, derived: Derived
) -> None:
    """Sums over rows are added in other groups if there are more threads; nothing else is."""
    chain = derived(name)
    for shape in SHAPES["cpu"]:
        case = verify.make_case(chain, shape, training=len(chain.modes) == 2)
        found = []
        for count in (1, 2, 3, 7, 16):
            with threads(count):
                found.append(bits(package(name), chain, case, torch.float32)[:2])
        assert all(other == found[0] for other in found), f"{shape}"


@pytest.mark.parametrize("name", NAMES)
def test_wherever_tensors_begin(name: str, package: Package, derived: Derived) -> None:
    """On the CPU. On a GPU rows that begin between two accesses take another form."""
    chain = derived(name)
    case = verify.make_case(chain, (67, 129), training=len(chain.modes) == 2)
    wanted = bits(package(name), chain, case, torch.float32)
    for elements in (1, 3):
        moved = dataclasses.replace(
            case,
            x=_later(case.x, elements),
            operands={n: _later(t, elements) for n, t in case.operands.items()},
        )
        assert bits(package(name), chain, moved, torch.float32) == wanted


def _later(tensor: Tensor, elements: int) -> Tensor:
    """Return an equal tensor in float32 that begins some elements after its storage does."""
    flat = torch.cat([tensor.new_zeros(elements), tensor.reshape(-1)])
    return flat.float()[elements:].view(tensor.shape)
