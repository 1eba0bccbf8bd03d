"""Elementary functions, rounding and functions of two in models: by torch's names, methods, in place.

No package is compiled: torch computes each spec, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from shared.by_torch import hold_seen, seen
from torch import Tensor

from fusegen.models import FusegenBackend, Report

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("specs_by_torch")]

#: Numbers below 1, of either sign.
X = torch.linspace(-3, 3, 48, dtype=torch.float64).mul(5).sin().mul(0.9).reshape(6, 8)
Y = torch.linspace(-2, 2, 48, dtype=torch.float64).mul(7).cos().add(1.5).reshape(6, 8)

ONE: dict[str, Callable[[Tensor], Tensor]] = {
    **{
        f"torch.{name}": getattr(torch, name)
        for name in (
            *("exp2", "tan", "asin", "arcsin", "acos", "arccos", "atan", "arctan", "sinh", "cosh"),
            *("asinh", "arcsinh", "atanh", "arctanh", "erfc", "floor", "ceil", "round", "trunc"),
            *("fix", "frac", "sgn"),
        )
    },
    **{
        f"special.{name}": getattr(torch.special, name)
        for name in ("exp2", "expm1", "erfc", "ndtr", "round")
    },
    "acosh": lambda x: torch.acosh(x + 2),
    "arccosh": lambda x: (x + 2).arccosh(),
    "log2": lambda x: torch.log2(x + 2),
    "log10": lambda x: (x + 2).log10(),
    "special.log1p": lambda x: torch.special.log1p(x),
    "special.softmax": lambda x: torch.special.softmax(x, -1),
    "special.log_softmax": lambda x: torch.special.log_softmax(x, dim=-1),
    "decimals": lambda x: torch.round(x, decimals=1),
    "method": lambda x: x.exp2() + x.round(decimals=2) + x.floor() * x.arcsin(),
}
TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("logaddexp", "hypot", "atan2", "arctan2", "xlogy")
    },
    "special.xlogy": torch.special.xlogy,
    "xlogy of a number": lambda x, y: torch.xlogy(x, 2.5) * y,
    "method": lambda x, y: x.hypot(y) + x.atan2(y) + x.logaddexp(y) + x.xlogy(y),
}
IN_PLACE = (
    *("exp2_", "tan_", "asin_", "acos_", "atan_", "sinh_", "cosh_", "erfc_"),
    *("floor_", "ceil_", "round_", "trunc_", "frac_", "fix_"),
)


def held(function: Callable[..., Any], *inputs: Tensor) -> Report:
    """Hold a function against eager, and return what was fused."""
    used = FusegenBackend(everything=True)
    wanted = seen(function, inputs, function)
    hold_seen(seen(function, inputs, torch.compile(function, backend=used)), wanted)
    return used.report


def is_one_region(report: Report) -> bool:
    return len(report.regions) == 1 and not report.regions[0].reason


@pytest.mark.parametrize("name", ONE)
def test_a_function_is_fused(name: str) -> None:
    function = ONE[name]
    assert is_one_region(held(lambda x: (function(x * 0.9) + x).tanh(), X))


@pytest.mark.parametrize("name", TWO)
def test_a_function_of_two_is_fused(name: str) -> None:
    function = TWO[name]
    assert is_one_region(held(lambda x, y: (function(x * 0.9, y) + x).tanh(), X, Y))


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_function_in_place_is_fused(name: str) -> None:
    def changed(x: Tensor) -> Tensor:
        h = x * 0.9
        getattr(h, name)()
        return h + x

    assert is_one_region(held(changed, X))


def test_fake_quantisation_is_one_region() -> None:
    """Its estimator passes the gradient by the rounding, and a clamp stops it."""

    def quantised(x: Tensor) -> Tensor:
        scaled = torch.nn.functional.silu(x) / 0.0625
        rounded = scaled + (torch.round(scaled) - scaled).detach()
        return torch.clamp(rounded, -8, 7) * 0.0625

    report = held(quantised, X * 4)
    assert is_one_region(report)
    assert "round(" in report.regions[0].spec
