"""Pointwise ops at every 16-bit number, value and derivative, against float64 truth.

Each op's element functions are compiled alone (`elementwise.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest
import sympy as sp
import torch
from conftest import DEVICES, built_alone, dtype_name
from prove.truth import AROUND, X, exactly, formula_of
from prove.ulps import NORMAL_TAIL, beyond, every
from prove.unary import ops_alone
from shared.elementwise import Elementwise
from shared.exact import tanhshrink
from torch import Tensor

from fusegen.tools.check.every_number import ulps

HALVES = [torch.bfloat16, torch.float16]
#: The value and its derivative.
ORDERS = (0, 1)


def specs() -> dict[str, str]:
    """Return the specs of all ops and formula functions that need x alone, with two derivatives."""
    return {name: f"order: 2\n{text}" for name, text in ops_alone().items()}


def finite(dtype: torch.dtype) -> Tensor:
    """Return all finite numbers of a 16-bit dtype."""
    x = every(dtype)
    return x[x.isfinite()]


@pytest.fixture(scope="module")
def elementwise(tmp_path_factory: pytest.TempPathFactory) -> Elementwise:
    return Elementwise(specs(), tmp_path_factory.mktemp("elementwise"), HALVES, ORDERS)


@pytest.fixture(scope="module")
def on_a_gpu(tmp_path_factory: pytest.TempPathFactory) -> Elementwise:
    needed = {name: text for name, text in specs().items() if name in TERMS}
    return Elementwise(needed, tmp_path_factory.mktemp("on_a_gpu"), HALVES, ORDERS, "cuda")


def softplus(x: Tensor) -> Tensor:
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))


def sech2(x: Tensor) -> Tensor:
    return torch.cosh(x) ** -2


def normpdf(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def mish_gate(x: Tensor) -> Tensor:
    """tanh(softplus(x)) = n / (n + 2) with n = exp(x) (exp(x) + 2)."""
    n = torch.exp(x.clamp(max=40)) * (torch.exp(x.clamp(max=40)) + 2)
    return n / (n + 2)


def gelu_gate(x: Tensor) -> tuple[Tensor, Tensor]:
    """The tanh form's gate, and the slope of its logarithm's odds."""
    slope, near = 2 * math.sqrt(2 / math.pi), x.clamp(-100, 100)
    inner = slope * (near + 0.044715 * near**3)
    return inner, slope * (1 + 3 * 0.044715 * near**2)


Function = Callable[[Tensor], Tensor]
#: Value and derivative of an op in float64, each as the terms of a sum; none cancels inside of a term.
TERMS: dict[str, tuple[Callable[[Tensor], list[Tensor]], Callable[[Tensor], list[Tensor]]]] = {
    "only_exp_0": (lambda x: [x.exp()], lambda x: [x.exp()]),
    "only_expm1_0": (lambda x: [x.expm1()], lambda x: [x.exp()]),
    "only_sigmoid_0": (
        lambda x: [x.sigmoid()],
        lambda x: [x.sigmoid() * (-x).sigmoid()],
    ),
    "only_log_sigmoid_0": (lambda x: [-softplus(-x)], lambda x: [(-x).sigmoid()]),
    "only_tanh_0": (lambda x: [x.tanh()], lambda x: [sech2(x)]),
    "only_tanhshrink_0": (lambda x: [tanhshrink(x)], lambda x: [x.tanh() ** 2]),
    "only_erf_0": (lambda x: [x.erf()], lambda x: [2 / math.sqrt(math.pi) * torch.exp(-x * x)]),
    "only_softsign_0": (lambda x: [x / (1 + x.abs())], lambda x: [(1 + x.abs()) ** -2]),
    "only_swish_0": (
        lambda x: [x * x.sigmoid()],
        lambda x: [x.sigmoid(), x * x.sigmoid() * (-x).sigmoid()],
    ),
    "only_gelu_0": (
        lambda x: [x * torch.special.ndtr(x)],
        lambda x: [torch.special.ndtr(x), x * normpdf(x)],
    ),
    "only_gelu_1": (
        lambda x: [x * gelu_gate(x)[0].sigmoid()],
        lambda x: [
            gelu_gate(x)[0].sigmoid(),
            x * gelu_gate(x)[0].sigmoid() * (-gelu_gate(x)[0]).sigmoid() * gelu_gate(x)[1],
        ],
    ),
    "only_mish_0": (
        lambda x: [x * mish_gate(x)],
        lambda x: [mish_gate(x), x * sech2(softplus(x)) * x.sigmoid()],
    ),
    "only_hardsigmoid_0": (
        lambda x: [((x + 3) / 6).clamp(0, 1)],
        lambda x: [torch.where((x > -3) & (x < 3), 1 / 6, 0.0)],
    ),
}
#: Where results are torch's and not exact, beyond a size: x times 10 to the number of decimals overflows.
BELOW = {"only_round_1": 1e36}
#: What the GPU's own tanh has in float16: 2^-11 of a result are up to an ulp of it, beside its rounding.
HARDWARE_TANH = {
    ("only_tanh_0", 0): 1.5,
    ("only_mish_0", 0): 1.5,
    ("only_mish_0", 1): 1.5,
    ("only_tanhshrink_0", 1): 2.5,
}


@pytest.mark.parametrize("dtype", HALVES, ids=dtype_name)
@pytest.mark.parametrize("order", ORDERS, ids=["value", "derivative"])
@pytest.mark.parametrize("name", TERMS)
def test_every_number_within_an_ulp(
    name: str, order: int, dtype: torch.dtype, elementwise: Elementwise
) -> None:
    check_every_number(elementwise, name, order, finite(dtype), 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", HALVES, ids=dtype_name)
@pytest.mark.parametrize("order", ORDERS, ids=["value", "derivative"])
@pytest.mark.parametrize("name", TERMS)
def test_every_number_on_a_gpu(
    name: str, order: int, dtype: torch.dtype, on_a_gpu: Elementwise
) -> None:
    bound = HARDWARE_TANH.get((name, order), 1.0) if dtype == torch.float16 else 1.0
    check_every_number(on_a_gpu, name, order, finite(dtype).cuda(), bound)


def check_every_number(
    elementwise: Elementwise, name: str, order: int, x: Tensor, bound: float
) -> None:
    """Hold results against the truth; a sum whose terms cancel, against the largest of them."""
    terms = torch.stack(TERMS[name][order](x.double()))
    size = terms.abs().amax(0) if len(terms) > 1 else None
    truth, got = terms.sum(0), elementwise(name, order, x)
    error = beyond(got, truth, size)
    error[(got.double() - truth).abs() < NORMAL_TAIL.get(name, 0.0)] = 0.0
    worst = int(error.argmax())
    at = f"at {x[worst]}: {got[worst]}, not {truth[worst]}"
    assert error[worst] <= bound, f"{error[worst]:.3g} ulp {at}"


@pytest.fixture(scope="module")
def log_softmax(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    text = "order: 1\nchain:\n  - log_softmax\n"
    return built_alone(tmp_path_factory.mktemp("log_softmax"), "confident", text, HALVES)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALVES, ids=dtype_name)
def test_no_log_softmax_is_above_0(
    dtype: torch.dtype, device: str, log_softmax: ModuleType
) -> None:
    """Each number beside two zeros: the exponentials add up to 1 and what float32 can add to it."""
    x = torch.zeros(len(finite(dtype)), 3, dtype=dtype, device=device)
    x[:, 0] = finite(dtype)
    got, truth = log_softmax.apply(x), x.double().log_softmax(-1)
    assert got.max() <= 0
    error = beyond(got, truth)
    error[(got.double() - truth).abs() < 2.0**-22] = 0.0
    worst = int(error.amax(-1).argmax())
    assert error[worst].max() <= 1, f"{x[worst]}: {got[worst]}, not {truth[worst]}"


@pytest.mark.parametrize("name", specs())
def test_every_op_within_an_ulp(name: str, elementwise: Elementwise) -> None:
    """Each op at some of all numbers, against its formula and that formula's derivative to 60 digits.

    Where the truth changes its sign nearby, an error is held against its size around there.
    """
    if name not in elementwise.chains:
        return  # not pointwise
    formula = formula_of(elementwise.chains[name])
    for order, expr in enumerate((formula, sp.diff(formula, X))):
        for dtype in HALVES:
            x = finite(dtype)[5::661]
            x = x[x.abs() < BELOW.get(name, math.inf)]
            truth, low, high = (
                torch.tensor([exactly(expr, v * s) for v in x.tolist()], dtype=torch.float64)
                for s in (1, *AROUND)
            )
            size = torch.where(low * high < 0, torch.maximum(low.abs(), high.abs()), truth.abs())
            got = elementwise(name, order, x)
            error = beyond(got, truth, size)
            error[(got.double() - truth).abs() < NORMAL_TAIL.get(name, 0.0)] = 0.0
            worst = int(error.argmax())
            at = f"derivative {order} at {x[worst]}: {got[worst]}, not {truth[worst]}"
            assert error[worst] <= 1, f"{error[worst]:.3g} ulp, {at}"


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=dtype_name)
def test_an_infinity_is_one_ulp_behind_the_largest_number(dtype: torch.dtype) -> None:
    """A truth just below the end of the range may round to it; one far below may not, nor may a pole."""
    largest = torch.finfo(dtype).max
    got = torch.tensor([math.inf, -math.inf, math.inf, math.inf, largest], dtype=dtype)
    truth = torch.tensor([largest, -largest, math.inf, 1.0, math.inf], dtype=torch.float64)
    near, below, pole, far, missed = ulps(got, truth).tolist()
    assert (near, below, pole) == (1, 1, 0)
    assert (far, missed) == (math.inf, math.inf)
