"""Fitted polynomials keep what they promise, and so do the functions that are built on them."""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Callable
from functools import partial

import mpmath
import pytest
import torch
from shared.exact import tanhshrink

from fusegen.atoms import tanh_softplus, tanh_softplus_slope
from fusegen.atoms.declare import ATOMS
from fusegen.base import paths
from fusegen.lower.polynomials import elementary as fitted
from fusegen.lower.polynomials.fit import ULP, Polynomial, evaluate, fit, parity, single
from fusegen.toolchain.compilers import find_compilers
from fusegen.tools import fitted_header

FUNCTIONS = [(mpmath.exp, -0.5, 0.5), (mpmath.sin, -1.0, 1.0), (mpmath.erf, -0.7, 1.2)]


@pytest.mark.parametrize(("function", "low", "high"), FUNCTIONS, ids=["exp", "sin", "erf"])
def test_the_error_that_is_printed_is_the_error(
    function: Callable[[mpmath.mpf], mpmath.mpf], low: float, high: float
) -> None:
    found = fit(function, low, high, 1e-6, 14)
    assert found is not None
    points = [single(low + (high - low) * k / 4999) for k in range(5000)]
    values = [float(function(x)) for x in points]
    least = max(abs(v) for v in values) / 16 if min(values) < 0 < max(values) else 0.0
    worst = max(
        abs(evaluate(found.coefficients, x) - v) / max(abs(v), least)
        for x, v in zip(points, values, strict=True)
    )
    assert worst <= 1.5 * found.error + ULP
    assert found.error <= 1e-6 + 2 * ULP


def test_a_lower_degree_would_not_do() -> None:
    """The polynomial is the shortest within the budget, as near as Chebyshev's theorem allows."""
    found = fit(mpmath.exp, -0.5, 0.5, 1e-5, 12)
    assert found is not None
    assert fit(mpmath.exp, -0.5, 0.5, 1e-5, found.degree - 1) is None
    bound = 2 * 0.25 ** (found.degree + 1) * 2 / math.factorial(found.degree + 1)
    assert found.error <= 1.2 * math.exp(0.5) * bound + ULP


def test_a_kink_gets_no_polynomial() -> None:
    assert fit(abs, -1.0, 1.0, 1e-6, 9) is None


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("scale", ["0", "1e-60", "1e-40"])
def test_what_is_0_in_float32_gets_no_polynomial(scale: str, absolute: bool) -> None:
    def function(s: mpmath.mpf) -> mpmath.mpf:
        return mpmath.mpf(scale) * mpmath.exp(s)

    assert fit(function, -1.0, 1.0, 1e-6, 4, absolute=absolute) is None


def test_parity() -> None:
    assert parity(mpmath.sin, -1.0, 1.0) == "odd"
    assert parity(mpmath.cos, -1.0, 2.0) == "even"
    assert parity(mpmath.exp, -1.0, 1.0) == "none"
    assert parity(mpmath.cos, 0.0, 1.0) == "none"


def test_coefficients_read_back_as_the_same_float32() -> None:
    coefficients = tuple(single(c) for c in (1 / 3, -2e-9, 1.0, 12345.678))
    text = Polynomial(coefficients, 0.0, 1.0, 0.0).horner("s")
    read = [single(float(t.split(")")[0])) for t in text.split("T(")[1:]]
    assert tuple(read) == coefficients


def test_the_header_is_what_the_recipes_give() -> None:
    """`python -m fusegen.tools.fitted_header` writes it anew."""
    for path, text in fitted_header.texts().items():
        assert path.read_text() == text


def test_the_tail_of_the_normal_distribution_is_half_at_0_and_falls_on() -> None:
    """Beyond the interval of its fit too: a last coefficient above 0 would make it rise to infinity."""
    (recipe,) = (r for r in fitted.RECIPES if r.name == "tail_log2")
    tail = fitted.polynomial(recipe, "brief")
    assert tail.coefficients[0] == -1
    assert tail.coefficients[-1] < 0
    values = [evaluate(tail.coefficients, s / 4) for s in range(400)]
    assert values == sorted(values, reverse=True)


def _normcdf(x: torch.Tensor) -> torch.Tensor:
    return torch.special.erfc(-x / math.sqrt(2)) / 2


#: What elementary.h's functions are in float64, and where they are tried.
TRUTHS = {
    "exp": (torch.exp, (-87.0, 88.0)),
    "expm1": (torch.expm1, (-20.0, 80.0)),
    "sigmoid": (torch.sigmoid, (-87.0, 90.0)),
    "tanh": (torch.tanh, (-20.0, 20.0)),
    "tanhshrink": (tanhshrink, (-20.0, 20.0)),
    "softsign": (torch.nn.functional.softsign, (-1e4, 1e4)),
    "sech2": (lambda x: 1 / torch.cosh(x) ** 2, (-40.0, 40.0)),
    "softplus": (lambda x: x.clamp(min=0) + torch.log1p(torch.exp(-x.abs())), (-80.0, 80.0)),
    "tanh_softplus": (partial(ATOMS[tanh_softplus].torch, torch), (-87.0, 90.0)),
    "tanh_softplus_slope": (partial(ATOMS[tanh_softplus_slope].torch, torch), (-43.0, 43.0)),
    "normcdf": (_normcdf, (-12.5, 12.0)),
    "normpdf": (lambda x: torch.exp(-x * x / 2) / math.sqrt(2 * math.pi), (-12.5, 12.5)),
    "erf": (torch.erf, (-6.0, 6.0)),
    "sin": (torch.sin, (-1e4, 1e4)),
    "cos": (torch.cos, (-1e4, 1e4)),
    "tan": (torch.tan, (-1e4, 1e4)),
    "asin": (torch.asin, (-1.0, 1.0)),
    "acos": (torch.acos, (-1.0, 1.0)),
    "atan": (torch.atan, (-50.0, 50.0)),
    "log": (torch.log, (0.0, 50.0)),
    "log2": (torch.log2, (0.0, 50.0)),
    "log10": (torch.log10, (0.0, 50.0)),
    "log1p": (torch.log1p, (-1.0, 50.0)),
    "exp2": (torch.exp2, (-125.0, 127.0)),
    "sinh": (torch.sinh, (-89.0, 89.0)),
    "cosh": (torch.cosh, (-89.0, 89.0)),
    "asinh": (torch.asinh, (-1e5, 1e5)),
    "acosh": (torch.acosh, (1.0, 1e5)),
    "atanh": (torch.atanh, (-1.0, 1.0)),
    "erfc": (torch.erfc, (-6.0, 9.0)),
}
#: Functions of two numbers.
TRUTHS_OF_TWO = {
    "pow": torch.pow,
    "atan2": torch.atan2,
    "hypot": torch.hypot,
    "xlogy": torch.special.xlogy,
}
#: The bound of each precision, in ulp of float32: `Brief` serves 16-bit results, so 0.3 ulp of float16.
BOUNDS = {"Single": 4.0, "Brief": 0.3 * 2**13}
#: Looser ones: products of several rounded factors, each of which may add half an ulp; and 2 to a fitted
#: logarithm, whose absolute error of 2.5e-4 is half an ulp of float16, so that a result is within one.
LOOSER = {
    ("Single", "normcdf"): 6.0,
    ("Single", "sech2"): 5.0,
    ("Single", "tanh_softplus_slope"): 7.0,
    ("Single", "erfc"): 5.5,
    ("Brief", "normcdf"): 0.5 * 2**13,
}
#: For 16-bit results a bell multiplies the rounding of x * x / 2 by its size, 72 at most.
BELLS = {"normpdf", "normcdf"}
#: Below, the tail of `Brief`, 2.9e-7 and falling, is good to an absolute error alone (elementary.py).
TAIL = {"normcdf": -5.0}


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """elementary.h's functions on arrays, compiled by the C++ compiler that builds kernels."""
    folder = tmp_path_factory.mktemp("elementary")
    lines = ['#include "fusegen/elementary.h"', "using namespace fusegen;"]
    lines += [
        f'extern "C" void {name}_{precision}(const float* x, float* y, long n) {{'
        f" for (long i = 0; i < n; ++i) y[i] = FastMath<fitted::{precision}>::{name}(x[i]); }}"
        for name in TRUTHS
        for precision in BOUNDS
    ]
    lines += [
        f'extern "C" void {name}_{precision}(const float* x, const float* z, float* y, long n) {{'
        f" for (long i = 0; i < n; ++i) y[i] = FastMath<fitted::{precision}>::{name}(x[i], z[i]); }}"
        for name in TRUTHS_OF_TWO
        for precision in BOUNDS
    ]
    source, library = folder / "elementary.cpp", folder / "elementary.so"
    source.write_text("\n".join(lines))
    command = [str(find_compilers().cxx), "-std=c++20", "-O2", "-march=native", "-shared", "-fPIC"]
    subprocess.run([*command, f"-I{paths.include()}", str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def compute(
    functions: ctypes.CDLL, name: str, precision: str, *inputs: torch.Tensor
) -> torch.Tensor:
    y = torch.empty_like(inputs[0])
    function = functions[f"{name}_{precision}"]
    function(*(ctypes.c_void_p(t.data_ptr()) for t in (*inputs, y)), ctypes.c_long(len(y)))
    return y


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("name", TRUTHS)
def test_elementary_functions_against_float64(
    functions: ctypes.CDLL, name: str, precision: str
) -> None:
    truth, (low, high) = TRUTHS[name]
    generator = torch.Generator().manual_seed(3)
    far = torch.rand(200_000, generator=generator) * (high - low) + low
    near = torch.randn(100_000, generator=generator).clamp(low, high)
    tiny = torch.randn(1000, generator=generator) * 1e-6
    x = torch.cat([far, near, tiny, torch.tensor([0.0, low, high])])
    wanted = truth(x.double())
    got = compute(functions, name, precision, x).double()
    normal = wanted.abs() >= 2.0**-126
    ulp = torch.exp2(torch.floor(torch.log2(wanted.abs().clamp(min=2.0**-126))) - 23)
    bound = torch.full_like(wanted, BOUNDS[precision])
    bound.clamp_(min=LOOSER.get((precision, name), 0.0))
    if precision == "Brief" and name in BELLS:
        bound += x.double() ** 2 / 2
    error = (got - wanted).abs() / ulp
    error[(got == wanted) | (got.isnan() & wanted.isnan())] = 0.0
    if precision == "Brief" and name in TAIL:
        beyond = x < TAIL[name]
        assert (got - wanted).abs()[beyond].max() < 1e-9
        normal &= ~beyond
    worst = int(torch.where(normal, error / bound, 0.0).argmax())
    assert error[worst] <= bound[worst], f"x = {x[worst]}: {got[worst]}, not {wanted[worst]}"


@pytest.mark.parametrize("name", TRUTHS)
def test_elementary_functions_at_the_ends(functions: ctypes.CDLL, name: str) -> None:
    """Infinities and NaN give what the limit gives, and NaN."""
    x = torch.tensor([math.inf, -math.inf, math.nan, 1e4, -1e4, 1e38, -1e38])
    wanted = TRUTHS[name][0](x.double()).float()
    torch.testing.assert_close(
        compute(functions, name, "Single", x), wanted, rtol=1e-6, atol=0.0, equal_nan=True
    )


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("name", TRUTHS_OF_TWO)
def test_functions_of_two_against_float64(
    functions: ctypes.CDLL, name: str, precision: str
) -> None:
    """Numbers of any bits, numbers near 1, whole numbers, and each edge with each."""
    generator = torch.Generator().manual_seed(4)
    bits = torch.randint(-(2**31), 2**31, (2, 200_000), generator=generator)
    near = torch.randn(2, 100_000, generator=generator) * 3
    edges = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0, 1e-45, 1e-38, 3e38, math.inf])
    edges = torch.cat([edges, -edges, torch.tensor([math.nan])])
    x, z = torch.cat(
        [bits.int().view(torch.float32), near, near.round(), torch.cartesian_prod(edges, edges).T],
        dim=1,
    ).contiguous()
    wanted = TRUTHS_OF_TWO[name](x.double(), z.double())
    got = compute(functions, name, precision, x, z)
    ulp = torch.exp2(torch.floor(torch.log2(wanted.abs().clamp(2.0**-126, 2.0**127))) - 23)
    error = (got.double() - wanted).abs() / ulp
    same = (got == wanted.float()) | (got.isnan() & wanted.isnan())
    tiny = (wanted.abs() < 2.0**-126) & (got.abs() <= 2.0**-126)
    wrong = ~(same | tiny | (error <= 4))
    assert not wrong.any(), [(t[wrong][:3].tolist()) for t in (x, z, got, wanted)]
    zero = (got == 0) & (wanted == 0)
    assert torch.equal(got[zero].signbit(), wanted[zero].signbit())


@pytest.mark.parametrize("name", ["log", "log2", "log10", "log1p", "acosh", "atanh", "asin"])
def test_functions_at_the_ends_of_their_domain(functions: ctypes.CDLL, name: str) -> None:
    """And at numbers outside of it, at subnormal numbers and at zeros, whose sign stays."""
    ends = torch.tensor([0.0, 1e-45, 1e-40, 1.1754944e-38, 0.99999994, 1.0, 1.0000001, 1e10, 3e38])
    x = torch.cat([ends, -ends])
    wanted = TRUTHS[name][0](x.double()).float()
    got = compute(functions, name, "Single", x)
    torch.testing.assert_close(got, wanted, rtol=4.8e-7, atol=0.0, equal_nan=True)
    zero = wanted == 0
    assert torch.equal(got[zero].signbit(), wanted[zero].signbit())


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_circular_functions_of_numbers_of_any_size(functions: ctypes.CDLL, name: str) -> None:
    """And near their zeros, where what is subtracted from the number must be exact."""
    generator = torch.Generator().manual_seed(5)
    sizes = torch.exp2(torch.rand(200_000, generator=generator) * 276.9 - 149)
    zeros = torch.arange(1, 100_000) * (math.pi / 2)
    x = torch.cat([sizes, -sizes, zeros, zeros * 2.0**70, torch.tensor([0.0, -0.0])])
    wanted = TRUTHS[name][0](x.double())
    got = compute(functions, name, "Single", x)
    unit = torch.exp2(torch.floor(torch.log2(wanted.abs().clamp(min=2.0**-126))) - 23)
    unit[wanted.abs() < 2.0**-126] = 2.0**-149
    error = (got.double() - wanted).abs() / unit
    bound = 4.0 if name == "tan" else 2.5
    assert error.max() < bound, f"x = {x[error.argmax()]}"
    assert torch.equal(torch.signbit(got[-2:]), torch.signbit(wanted[-2:]))


@pytest.mark.parametrize("precision", BOUNDS)
def test_what_cancels_is_exact(functions: ctypes.CDLL, precision: str) -> None:
    """exp(0) and sech2(0) are 1, as are the odd functions' slopes at 0: for log_softmax, x - tanh(x)."""
    x = torch.tensor([0.0, -0.0])
    for name in ("exp", "sech2"):
        assert compute(functions, name, precision, x).tolist() == [1.0, 1.0]
    x = torch.tensor([1e-5, -3e-6, 2e-20])
    for name in ("tanh", "expm1"):
        got = compute(functions, name, precision, x)
        torch.testing.assert_close(got, x, rtol=6e-6, atol=0.0)
    x = torch.tensor([1e-3, -2e-3, 0.05])
    got = compute(functions, "exp", precision, x) - 1
    torch.testing.assert_close(got, torch.expm1(x.double()).float(), rtol=2e-4, atol=0.0)


@pytest.mark.parametrize("precision", BOUNDS)
def test_exp_where_it_leaves_the_range(functions: ctypes.CDLL, precision: str) -> None:
    """Each number around the largest and the smallest argument, and NaN of any payload."""
    for end in (88.72284, -87.33655):
        middle = torch.tensor(end).view(torch.int32)
        x = (middle + torch.arange(-50_000, 50_000, dtype=torch.int32)).view(torch.float32)
        got, wanted = compute(functions, "exp", precision, x), torch.exp(x.double()).float()
        rtol = 1e-6 if precision == "Single" else 1e-4
        torch.testing.assert_close(got, wanted, rtol=rtol, atol=2.0**-126)
    bits = torch.randint(1, 2**23, (1000,), dtype=torch.int32) | 0x7F800000
    assert compute(functions, "exp", precision, bits.view(torch.float32)).isnan().all()
