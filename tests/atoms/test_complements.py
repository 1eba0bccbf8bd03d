"""Differences that cancel: each has another form, and derivatives are exact where functions saturate."""

from __future__ import annotations

import functools
from pathlib import Path

import mpmath
import pytest
import sympy as sp
import torch
from shared.vocabulary import VARIANTS

from fusegen import load, ops
from fusegen.atoms import (
    Let,
    expm1,
    log1p,
    normcdf,
    sech2,
    sigmoid,
    softplus,
    tanh,
    tanh_softplus,
    tanhshrink,
)
from fusegen.atoms.complements import complemented
from fusegen.atoms.values import evaluate

X, Y = sp.symbols("x y", real=True)
#: Differences that cancel, and what becomes of each.
FORMS: list[tuple[sp.Expr, sp.Expr]] = [
    (1 - sigmoid(X), sigmoid(-X)),
    (1 - sigmoid(-2 * X), sigmoid(2 * X)),
    (Y - Y * sigmoid(X), Y * sigmoid(-X)),
    (1 - 2 * sigmoid(X), -tanh(X / 2)),
    (sigmoid(X) - sigmoid(-X), tanh(X / 2)),
    (1 - normcdf(X), normcdf(-X)),
    (2 * normcdf(X) - 1, sp.erf(X / sp.sqrt(2))),
    (1 - sp.erf(X), 2 * normcdf(-sp.sqrt(2) * X)),
    (1 + sp.erf(X), 2 * normcdf(sp.sqrt(2) * X)),
    (1 - tanh(X), 2 * sigmoid(-2 * X)),
    (X * (1 + tanh(X)) / 2, X * sigmoid(2 * X)),
    (0.5 + 0.5 * tanh(X), 1.0 * sigmoid(2 * X)),
    (1 - tanh(X) ** 2, sech2(X)),
    (1 - sech2(X), tanh(X) ** 2),
    (2 * X - 2 * tanh(X), 2 * tanhshrink(X)),
    (sp.exp(X) - 1, expm1(X)),
    (1 - sp.exp(-sp.exp(X)), -expm1(-sp.exp(X))),
    (sp.log(1 + Y), log1p(Y)),
    (sp.log(1 - sp.exp(X)), sp.log(-expm1(X))),
    (softplus(-X) - softplus(X), -X),
    (1 + Y - sigmoid(X), Y + sigmoid(-X)),
    (X * tanh(softplus(Y)), X * tanh_softplus(Y)),
    (1 - tanh(softplus(X)), 2 * sigmoid(-2 * softplus(X))),
    (tanh(softplus(X)) ** 2 - 1, -sech2(softplus(X))),
]
#: Ops of one number that saturate, or whose derivatives do.
OPS = (
    *(
        "sigmoid",
        "logsigmoid",
        "swish",
        "quick_gelu",
        "gelu",
        "tanh",
        "softplus",
        "mish",
        "softsign",
    ),
    *("tanhshrink", "elu", "selu", "celu", "erf", "expm1", "exp"),
)
#: Numbers that float32 has, so that both dtypes have the same truth.
POINTS = torch.tensor(
    [
        *(-40.0, -17.0, -8.0, -3.1, -1.0, -0.3, -1e-3, -1e-6),
        *(1e-6, 1e-3, 0.3, 1.0, 3.1, 8.0, 17.0, 40.0),
    ],
    dtype=torch.float32,
)


@pytest.mark.parametrize(("difference", "form"), FORMS, ids=[str(d) for d, _ in FORMS])
def test_a_difference_that_cancels_has_another_form(difference: sp.Expr, form: sp.Expr) -> None:
    found = complemented(difference)
    assert sp.expand(found - form) == 0
    with mpmath.workdps(40):
        for x in (-2.3, -0.4, 0.7):
            known = {X: mpmath.mpf(x), Y: mpmath.mpf("0.8")}
            assert mpmath.almosteq(evaluate(found, known), evaluate(difference, known), 1e-30)


@pytest.mark.parametrize("expr", [1 + sigmoid(X), 2 - tanh(X), sigmoid(X) + sigmoid(-X), 1 + X])
def test_a_sum_that_does_not_cancel_stays(expr: sp.Expr) -> None:
    assert complemented(expr) == expr


def cases() -> list[tuple[str, str]]:
    """Return each op with each package of it that has no operands."""
    named = {name.removesuffix("_"): name for name in OPS}
    return [
        (op, f"only_{op}_{number}")
        for op in (ops.find(name).name for name in named)
        for number in range(len(VARIANTS.get(op, [""])))
    ]


@functools.cache
def truth(package: str, op: str, order: int, x: float) -> tuple[mpmath.mpf, float]:
    """Return a derivative of an op's formula at x, and how much it magnifies a relative error of x."""
    number = int(package.rsplit("_", 1)[1])
    given = VARIANTS.get(op, [""])[number]
    named = dict(part.split(": ") for part in given.split(", ")) if given else {}
    declared = ops.find(op)
    attributes = {**declared.attributes}
    for name, value in named.items():
        attributes[name] = value if isinstance(attributes[name], str) else float(value)
    formula = ops.call(declared, X, {}, attributes)
    while formula.has(Let):
        formula = formula.replace(lambda e: isinstance(e, Let), lambda e: e.value)

    def function(at: mpmath.mpf) -> mpmath.mpf:
        return evaluate(formula, {X: at})

    with mpmath.workdps(400):  # 1 + tanh is 1e-160 where it is not yet 0 in float64
        step = mpmath.mpf(10) ** -30
        exact = mpmath.diff(function, x, order, h=step)
        slope = mpmath.diff(function, x, order + 1, h=step)
        return exact, float(abs(x * slope / exact)) if exact else 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("op", "package"), cases())
def test_derivatives_are_exact_in_both_tails(
    op: str, package: str, dtype: torch.dtype, vocabulary: Path
) -> None:
    """Relatively, to 16 ulp, and as much more as the rounding of x to an ulp alone makes of it."""
    x = POINTS[None].to(dtype, copy=True).requires_grad_()
    value = load(package, vocabulary / "generated").apply(x)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    second = torch.autograd.grad(first.sum(), x)[0] if first.requires_grad else None
    tiny = torch.finfo(dtype).tiny
    for order, found in ((1, first), (2, second)):
        if found is None:
            continue
        for at, got in zip(x.flatten().tolist(), found.flatten().tolist(), strict=True):
            exact, condition = truth(package, op, order, at)
            bound = (16 + 2 * condition) * torch.finfo(dtype).eps * abs(exact) + 16 * tiny
            assert abs(got - exact) <= bound, (order, at, got, float(exact))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_binary_cross_entropy_keeps_small_losses(
    target: float, dtype: torch.dtype, vocabulary: Path
) -> None:
    """Value and gradients, to 8 ulp of the terms that they are made of; those of one class do not cancel."""
    x = POINTS[None].to(dtype, copy=True).requires_grad_()
    given = torch.full_like(x, target).requires_grad_()
    package = "only_binary_cross_entropy_with_logits_1"
    value = load(package, vocabulary / "generated").apply(x, given)
    found = [g * x.numel() for g in torch.autograd.grad(value, [x, given])]
    unit = 8 * torch.finfo(dtype).eps
    with mpmath.workdps(40):
        for at, by_x, by_target in zip(*(t.flatten().tolist() for t in (x, *found)), strict=True):
            up, down = (1 / (1 + mpmath.exp(sign * mpmath.mpf(at))) for sign in (-1, 1))
            share = mpmath.mpf(given.flatten()[0].item())
            terms = (1 - share) * up, -share * down
            assert abs(by_x - sum(terms)) <= unit * max(map(abs, terms)), at
            assert abs(by_target + at) <= unit * abs(at), at
