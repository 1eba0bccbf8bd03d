"""Elementary functions, rounding and functions of two at edges, against float64, in every dtype.

At infinities, NaN, zeros of either sign, subnormal and huge numbers, ties and the ends of domains each is
float64's, rounded. Below the smallest normal number a result may be 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

import fusegen

pytestmark = pytest.mark.slow

ONE = (
    *("exp2", "log2", "log10", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh"),
    *("atanh", "erfc", "floor", "ceil", "round", "trunc", "frac"),
)
TWO = ("logaddexp", "xlogy", "hypot", "atan2")
EXACT = ("floor", "ceil", "round", "trunc", "frac")
EDGES = (
    *(0.0, 0.5, 1.0, 1.5, 2.5, 3.0, 8.0, 10.0, 11.3, 64.0, 88.0, 89.0, 89.5, 126.0, 127.9, 150.0),
    *(0.99999994, 1.0000001, 1000.0, 8388607.5, 16777215.0, 1e10, 3e38),
    *(2e-38, 1e-40, 1e-45, 1e-300, 5e-324, 1e300, math.inf),
)
POINTS = torch.tensor([*EDGES, *(-e for e in EDGES), math.nan], dtype=torch.float64)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def spec_text() -> str:
    steps = [f'{{expr: {{name: the_{n}, formula: "{n}(input)"}}}}' for n in ONE]
    steps += [f'{{expr: {{name: the_{n}, formula: "{n}(input, y)"}}}}' for n in TWO]
    names = [f"the_{n}" for n in (*ONE, *TWO)]
    listed = "\n".join(f"  - {step}" for step in steps)
    return f"order: 1\noperands: {{y: full}}\noutputs: [{', '.join(names)}]\nchain:\n{listed}\n"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("functions")
    path: Path = folder / "functions.yaml"
    path.write_text(spec_text())
    fusegen.build(path, out=folder / "generated", backend="cpu", quiet=True)
    return fusegen.load("functions", folder / "generated")


def by_torch(name: str) -> Callable[..., Tensor]:
    function: Callable[..., Tensor] = getattr(torch, name)
    return function


def hold(name: str, got: Tensor, exact: Tensor, terms: Tensor | None = None) -> None:
    """Compare a result with float64's: to 4 ulp (half an ulp of 16 bits), to the last bit if it is exact.

    Where it is a sum of terms that may cancel, the ulp is one of float32 of these.
    """
    rounded, unit = exact.to(got.dtype), torch.finfo(got.dtype).eps
    ulps = 4 if got.dtype in (torch.float32, torch.float64) else 0.51
    allowed = 0.0 if name in EXACT else ulps * unit
    least = torch.finfo(got.dtype).tiny * (0 if name in EXACT else 1.01)
    same = (got == rounded) | (got.isnan() & rounded.isnan())
    cancelled = 0 if terms is None else 4 * min(unit, 2.0**-23) * terms.abs() + least
    near = (got.double() - exact).abs() <= allowed * exact.abs() + cancelled
    low = (exact.abs() < least) & (got.abs() <= least)
    wrong = ~(same | near | low)
    assert not wrong.any(), list(zip(got[wrong].tolist(), exact[wrong].tolist(), strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_each_function_is_that_of_float64_at_edges(package: ModuleType, dtype: torch.dtype) -> None:
    points = POINTS.to(dtype)
    pairs = torch.tensor(
        list(itertools.product(points.double().tolist(), repeat=2)), dtype=torch.float64
    )
    x, y = (side.to(dtype)[None] for side in pairs.unbind(1))
    found = dict(zip((*ONE, *TWO), package.apply(x, y), strict=True))
    for name in ONE:
        hold(name, found[name], by_torch(name)(x.double()))
    for name in TWO:
        larger = torch.maximum(x.double(), y.double()) if name == "logaddexp" else None
        hold(name, found[name], by_torch(name)(x.double(), y.double()), larger)


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc"])
def test_the_sign_of_zero_is_torchs(package: ModuleType, name: str) -> None:
    x = torch.tensor([[-0.0, 0.0, -0.25, 0.25, -0.5, 0.5]])
    found = dict(zip((*ONE, *TWO), package.apply(x, x), strict=True))
    assert torch.equal(found[name].signbit(), by_torch(name)(x).signbit())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_whole_powers_are_exact(package: ModuleType, dtype: torch.dtype) -> None:
    n = torch.arange(-14.0, 15.0)[None]
    found = dict(zip((*ONE, *TWO), package.apply(n.to(dtype), n.to(dtype)), strict=True))
    assert torch.equal(found["exp2"].double(), n.double().exp2())
    powers = n.double().exp2().to(dtype)
    found = dict(zip((*ONE, *TWO), package.apply(powers, powers), strict=True))
    assert torch.equal(found["log2"], n.to(dtype))
