"""Operands of size 1 after a reduction: where they alone give a value its size, the call is refused."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor

_MEAN = "- mean: {dim: -1, keepdim: true}"
SPECS = {
    "sized_by_col": f"dims: 3\noperands: {{a: col}}\nchain:\n{_MEAN}\n- mul: a\n",
    "sized_and_summed": f"""
dims: 3
operands: {{a: col}}
chain:
{_MEAN}
- mul: a
- sum: {{dim: -1, keepdim: true}}
- mul: input
""",
    "sized_output": f"""
dims: 3
operands: {{a: col}}
outputs: [p, y]
chain:
{_MEAN}
- mul: {{name: p, other: a}}
- mul: {{name: y, other: input}}
""",
    # What x makes as large is right with any operand.
    "sized_by_x": f"""
dims: 3
operands: {{a: col}}
chain:
{_MEAN}
- mul: a
- mul: input
- sum: {{dim: -1, keepdim: true}}
""",
    "sized_by_two": f"operands: {{a: col, b: col}}\nchain:\n{_MEAN}\n- mul: a\n- add: b\n",
    "sized_by_channels": """
dims: 4
operands: {a: channel}
chain:
- amin: {dim: 1, keepdim: true}
- mul: a
""",
    "sized_apart": """
dims: 4
operands: {a: col}
chain:
- mean: {dim: [1, 3], keepdim: true}
- mul: a
""",
    "sized_in_formula": """
dims: 3
operands: {a: full}
chain:
- expr: {formula: "mean(x) + a", dim: -1}
""",
    "sized_by_dims": """
dims: 3
operands: {a: {dims: [0, 2]}}
chain:
- expr: {formula: "mean(x) + a", dim: -1}
""",
}


def _in_torch(name: str, x: Tensor, a: Tensor, b: Tensor) -> list[Tensor]:
    m = x.mean(-1, keepdim=True)
    a = a[:, None, None] if name == "sized_by_channels" and a.dim() == 1 else a
    a = a[:, None] if name == "sized_by_dims" and a.dim() == 2 else a
    found = {
        "sized_by_col": [m * a],
        "sized_and_summed": [(m * a).sum(-1, keepdim=True) * x],
        "sized_output": [m * a, m * a * x],
        "sized_by_x": [(m * a * x).sum(-1, keepdim=True)],
        "sized_by_two": [m * a + b],
        "sized_in_formula": [m + a],
        "sized_by_dims": [m + a],
    }
    if name == "sized_by_channels":
        return [x.amin(1, keepdim=True) * a]
    return [x.mean((1, 3), keepdim=True) * a] if name == "sized_apart" else found[name]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "sizes_of_operands", SPECS)


_OF_COL = ((5,), (1, 5), (1,), (), (1, 1))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *[(n, s) for n in ("sized_by_col", "sized_and_summed", "sized_output") for s in _OF_COL],
        *[(n, s) for n in ("sized_by_x", "sized_by_two") for s in _OF_COL],
        *[("sized_by_channels", s) for s in ((4,), (4, 1, 1), (1,), (1, 1, 1))],
        *[("sized_apart", s) for s in ((4, 1, 5), (1, 1, 5), (4, 1, 1), (1, 1, 1))],
        *[("sized_in_formula", s) for s in ((2, 4, 5), (5,), (2, 4, 1), (4, 1), ())],
        *[("sized_by_dims", s) for s in ((2, 5), (1, 1, 5), (2, 1, 1))],
    ],
)
@pytest.mark.parametrize("cols", [5, 1])
def test_the_shape_is_that_of_torch_or_the_call_is_refused(
    packages: dict[str, ModuleType], name: str, shape: tuple[int, ...], cols: int
) -> None:
    torch.manual_seed(1)
    shape = tuple(cols if size == 5 else size for size in shape)
    sizes = (2, 4, 3, cols) if name in ("sized_by_channels", "sized_apart") else (2, 4, cols)
    x, a, b = (torch.randn(s, dtype=torch.float64) for s in (sizes, shape, (cols,)))
    x = x[0] if name == "sized_by_two" else x
    wanted = _in_torch(name, x, a, b)
    model = packages[name].Module().double()
    needed = {"sized_by_channels": 1, "sized_apart": 1}.get(name, -1)
    narrow = name != "sized_by_x" and any(
        v.shape[dim] < x.shape[dim]
        for v in (wanted if name != "sized_and_summed" else [x.mean(-1, keepdim=True) * a])
        for dim in {needed, -1 if name == "sized_apart" else needed}
    )
    inputs = (x, a, b) if name == "sized_by_two" else (x, a)
    if narrow:
        with pytest.raises(ValueError, match=f"{name}: a: expected size .* after a reduction"):
            model(*inputs)
        return
    found = model(*inputs)
    for value, other in zip(found if isinstance(found, tuple) else (found,), wanted, strict=True):
        torch.testing.assert_close(value, other)


def test_one_of_two_operands_gives_the_size(packages: dict[str, ModuleType]) -> None:
    x, one, five = (torch.randn(s, dtype=torch.float64) for s in ((4, 5), (1,), (5,)))
    model = packages["sized_by_two"].Module().double()
    for a, b in ((one, five), (five, one)):
        torch.testing.assert_close(model(x, a, b), x.mean(-1, keepdim=True) * a + b)
    with pytest.raises(ValueError, match="sized_by_two: a: expected size 5 along dim -1"):
        model(x, one, one)
