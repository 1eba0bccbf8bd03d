"""Pointwise ops at zeros, infinities, NaN, huge and tiny numbers: value and two derivatives, as in torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import sympy as sp
import torch
from conftest import dtype_name
from prove.truth import X, exactly, formula_of
from shared.elementwise import Elementwise
from test_every_number import specs
from torch import Tensor

from fusegen.tools.check.reference import run_chain

DTYPES = [torch.float64, torch.float32, torch.bfloat16]

Where = Callable[[float], bool]


#: Where a result is neither torch's nor exact, by op and derivative, and why.
DIFFERENT: dict[tuple[str, int], tuple[Where, str]] = {
    **{
        (name, 2): (
            lambda x: x == 0,
            "a kink of the derivative, whose own one torch has as 0 there",
        )
        for name in ("only_elu_0", "only_selu_0", "only_celu_0")
    },
    **{
        (name, 1): (math.isnan, "1 as in torch's scalar and CUDA code; its vector code has 0")
        for name in ("only_hardshrink_0", "only_softshrink_0")
    },
    **{
        (name, order): (lambda x: x < -87, "exp(x) is 0 below the smallest normal float32 number")
        for name in ("only_swish_0", "only_mish_0")
        for order in (0, 1, 2)
    },
    ("only_gelu_1", 1): (math.isinf, "1 and 0 are the limits; torch has 0 inf, which is NaN"),
    ("only_gelu_1", 2): (math.isinf, "0 is the limit; torch has 0 inf, which is NaN"),
    ("only_softsign_0", 1): (math.isinf, "0 is the limit; torch's quotient is NaN"),
    ("only_softsign_0", 2): (math.isinf, "0 is the limit; torch's quotient is NaN"),
    ("only_hardswish_0", 2): (math.isnan, "torch takes NaN for a number above 3"),
    ("only_acosh_0", 2): (math.isinf, "0 is the limit; torch has 0 inf, which is NaN"),
    ("only_atan_0", 2): (lambda x: 1.7e38 < abs(x) < math.inf, "2 x overflows beside a slope of 0"),
    ("formula_normpdf", 2): (lambda x: abs(x) > 1e19, "(x^2 - 1) overflows"),
    ("formula_sech2", 1): (math.isinf, "0 is the limit; torch has no such function"),
    ("formula_sech2", 2): (math.isinf, "0 is the limit; torch has no such function"),
}


@pytest.fixture(scope="module")
def elementwise(tmp_path_factory: pytest.TempPathFactory) -> Elementwise:
    return Elementwise(specs(), tmp_path_factory.mktemp("extremes"), DTYPES, (0, 1, 2))


def extremes(dtype: torch.dtype) -> list[float]:
    info = torch.finfo(dtype)
    found = [0.0, 1.0, 20.0, 50.0, 88.0, 90.0, 105.0, 1e4, 1e10, 1e13, 1e18, 1e20, 3e38, math.inf]
    found += [info.tiny, info.tiny / 4, info.tiny * info.eps]  # the last two are subnormal
    found += [1e150, 1e300] if dtype == torch.float64 else []
    return [sign * value for value in found for sign in (1, -1)] + [math.nan]


def derivatives(function: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Return a function's value and its first two derivatives, as far as torch has them."""
    x = x.clone().requires_grad_()
    found = [function(x)]
    for _ in range(2):
        ones = torch.ones_like(x)
        try:
            (slope,) = torch.autograd.grad(
                found[-1], x, ones, create_graph=True, materialize_grads=True
            )
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            break  # torch has no second derivative of hardsigmoid
        found.append(slope)
        if not slope.requires_grad:
            break
    return [
        torch.zeros_like(x) + f.detach() for f in found
    ]  # a derivative that is 0 has no storage


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("name", specs())
def test_extremes_are_torchs(name: str, dtype: torch.dtype, elementwise: Elementwise) -> None:
    """Each result is torch's own in the same dtype, in its vector code, or exact.

    What is exact is known to 60 digits, and from torch in float64 where x is not finite: its float32 code for
    AVX-512 has NaN for gelu(inf).
    """
    if name not in elementwise.chains:
        return  # not pointwise
    points = extremes(dtype)
    x = torch.tensor(points, dtype=torch.float64).to(dtype)
    formula = formula_of(elementwise.chains[name])
    close = (
        2 if dtype == torch.bfloat16 else 1024
    )  # exp(-700) takes on 700 times its argument's error
    info = torch.finfo(dtype)
    doubles = torchs(elementwise, name, x.double())
    for order, same in enumerate(torchs(elementwise, name, x)):
        limits = zip(x.tolist(), doubles[order].tolist(), strict=True)
        exact = [exactly(formula, v) if math.isfinite(v) else limit for v, limit in limits]
        got, right = elementwise(name, order, x).double(), torch.zeros(len(x), dtype=torch.bool)
        for wanted in (same.double(), torch.tensor(exact, dtype=torch.float64).to(dtype).double()):
            right |= torch.isclose(
                got, wanted, rtol=close * info.eps, atol=info.tiny, equal_nan=True
            )
        allowed = DIFFERENT.get((name, order), (lambda _: False, ""))[0]
        for place in torch.nonzero(~right).flatten().tolist():
            at = f"derivative {order} at {x[place]}: {got[place]}, torch {same[place]}, "
            assert allowed(points[place]), f"{at}{exact[place]}"
        formula = sp.diff(formula, X)


def torchs(elementwise: Elementwise, name: str, x: Tensor) -> list[Tensor]:
    """Return torch's own results, each number in vectors of its own: torch's scalar code may have others."""
    spec = elementwise.chains[name].spec
    many = x.repeat_interleave(64)
    return [f[::64] for f in derivatives(lambda t: run_chain(spec, t, {}, {}), many)]


@pytest.mark.parametrize(("name", "order"), DIFFERENT)
def test_what_is_different_is_so(name: str, order: int, elementwise: Elementwise) -> None:
    """No entry of the table outlives its reason."""
    where, reason = DIFFERENT[name, order]
    assert name in elementwise.chains, reason
    different = []
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([p for p in extremes(dtype) if where(p)], dtype=dtype)
        got, same = elementwise(name, order, x), torchs(elementwise, name, x)[order]
        different += (~torch.isclose(got, same, rtol=1e-9, atol=0, equal_nan=True)).tolist()
    assert any(different), reason
