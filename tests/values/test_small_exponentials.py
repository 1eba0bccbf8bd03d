"""Functions that fall as an exponential does keep float32's digits where they are small, on each device."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from conftest import DEVICES, once, shared
from shared.vocabulary import build_for_devices

from fusegen import load
from fusegen.tools.check.every_number import ulps

FORMULAS = {
    "sigmoid(x)": torch.sigmoid,
    "softplus(x)": lambda x: torch.log1p(torch.exp(x)),
    "sech2(x)": lambda x: torch.cosh(x) ** -2,
    "normcdf(x)": lambda x: torch.special.erfc(-x / 2**0.5) / 2,
    "normpdf(x)": lambda x: torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5,
}
#: Where the result is a normal number. `normcdf` multiplies two rounded factors by a third.
LEAST = {"sech2(x)": -43.0, "normcdf(x)": -12.9, "normpdf(x)": -13.0}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    folder = shared(tmp_path_factory) / "small_exponentials"
    texts = {
        f"small_{place}": f'dtypes: [float32]\nchain:\n  - expr: "{formula}"\n'
        for place, formula in enumerate(FORMULAS)
    }
    once(
        tmp_path_factory,
        "small_exponentials",
        lambda: build_for_devices(folder, texts, ["float32"]),
    )
    return {f: load(n, folder / "generated") for f, n in zip(FORMULAS, texts, strict=True)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("formula", FORMULAS)
def test_a_small_result_has_all_digits(
    formula: str, device: str, packages: dict[str, ModuleType]
) -> None:
    """An exponential multiplies the rounding of its argument by its size, unless that is made good."""
    least = LEAST.get(formula, -86.0)
    x = torch.linspace(least, least / 8, 100_003, dtype=torch.float64).float()
    got = packages[formula].apply(x.to(device)).cpu()
    error = ulps(got, FORMULAS[formula](x.double()))
    assert error.max() < 6, f"x = {x[error.argmax()]}: {error.max():.3g} ulp"
