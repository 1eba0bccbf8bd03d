"""The binding alone, without the checks that Python makes before a call: its errors, and what it frees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import built_alone
from torch import Tensor

from fusegen.base import stamp

Package = Callable[[str], ModuleType]


def operators(package: ModuleType) -> Any:
    """Return what torch calls a package's operators."""
    folder = Path(package.__file__ or "").parent
    found = stamp.read(folder / "_cpu.so")
    return getattr(torch.ops, found.namespace(folder.name))


ROWS = torch.ones(3)
GOOD: dict[str, Tensor] = {
    "x": torch.linspace(-1, 1, 12).reshape(3, 4),
    "scale": torch.tensor(2.0),
    "grad_y": torch.linspace(1, 2, 12).reshape(3, 4),
    "softmax_max": ROWS,
    "softmax_sum": ROWS,
}
#: What takes a tensor's place, and the error.
BAD: list[tuple[str, Tensor, str]] = [
    ("x", GOOD["x"].int(), "x: expected float64, float32, bfloat16 or float16"),
    ("scale", ROWS, "scale: its shape does not fit x"),
    ("scale", GOOD["scale"].double(), "scale: its dtype does not fit that of x"),
    ("grad_y", GOOD["grad_y"].t(), "grad_y: its shape does not fit x"),
    ("softmax_sum", torch.ones(2), "softmax_sum: not what the forward pass of this x saved"),
    ("softmax_sum", torch.ones(6)[::2], "softmax_sum: not what the forward pass of this x saved"),
]


def references(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor._use_count() for tensor in tensors]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "wrong", "error"), BAD)
def test_an_error_frees_the_arguments(
    name: str, wrong: Tensor, error: str, package: Package
) -> None:
    backward = operators(package("scale_softmax")).backward.default
    tensors = [wrong if n == name else tensor for n, tensor in GOOD.items()]
    before = references(tensors)
    with pytest.raises(RuntimeError, match=error):
        backward(*tensors)
    assert references(tensors) == before
    backward(*GOOD.values())
    assert references(tensors) == before


def test_copies_are_freed_too(package: Package) -> None:
    """Of tensors whose columns are not adjacent, the kernels read contiguous copies."""
    apply = operators(package("scale_softmax")).forward_value.default
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).transpose(1, 2)
    before = references([x])
    y = apply(x, GOOD["scale"])
    assert references([x, y]) == [*before, 1]
    torch.testing.assert_close(y, torch.softmax(2 * x, -1))


def test_a_call_may_have_many_tensors(tmp_path: Path) -> None:
    """More than a call has room for at first; each of them is copied, and all are freed."""
    names = [f"a{n}" for n in range(50)]
    declared = "".join(f"  {name}: col\n" for name in names)
    steps = "".join(f"  - add: {name}\n" for name in names)
    text = f"order: 1\noperands:\n{declared}chain:\n{steps}"
    package = built_alone(tmp_path, "many_tensors", text, [torch.float32])
    x = torch.zeros(3, 4, requires_grad=True)
    operands = [torch.full((8,), float(2**n))[::2].requires_grad_() for n in range(20)]
    operands += [torch.zeros(8)[::2].requires_grad_() for _ in range(30)]
    before = references([x, *operands])
    y = package.apply(x, *operands)
    assert torch.equal(y, torch.full((3, 4), float(2**20 - 1)))
    gradients = torch.autograd.grad(y.sum(), [x, *operands])
    assert [float(g.sum()) for g in gradients] == [12.0] * 51
    del y, gradients
    assert references([x, *operands]) == before
