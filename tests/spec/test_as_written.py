"""A formula gives what torch gives for its text, where sympy alone would simplify it to other numbers."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from conftest import built_alone
from torch import Tensor

from fusegen import spec
from fusegen.chain import derive
from fusegen.spec.model import Spec
from fusegen.tools.check.reference import run_chain
from fusegen.tools.check.reference_chain import run_programs

NUMBERS = (0.0, math.inf, -math.inf, math.nan, 1.0, 0.25, -3.0, 1e200, -1e-200, 800.0, -800.0)
PAIRS = torch.tensor([*itertools.product(NUMBERS, NUMBERS)], dtype=torch.float64)


def chain(*steps: str) -> Spec:
    text = "operands: {y: full}\nchain:\n" if any("y" in s for s in steps) else "chain:\n"
    return spec.parse(text + "".join(f"  - {step}\n" for step in steps), "written")


def assert_as_torch(parsed: Spec, *, gradient: bool) -> None:
    """Compare what the programs give with the formula's text by torch: its value, and its gradients."""
    derived = derive(parsed)
    given = {o.name: PAIRS[:, 1:] for o in parsed.operands}

    def both(x: Tensor, *operands: Tensor) -> list[Tensor]:
        named = dict(zip(given, operands, strict=True))
        return [run_chain(parsed, x, named, {}), run_programs(derived, x, named, {})]

    leaves = [t.clone().requires_grad_() for t in (PAIRS[:, :1], *given.values())]
    for results in zip(*(_results(v, leaves, gradient) for v in both(*leaves)), strict=True):
        torch.testing.assert_close(*results, rtol=1e-12, atol=1e-300, equal_nan=True)


def _results(value: Tensor, leaves: list[Tensor], gradient: bool) -> list[Tensor]:
    found = torch.autograd.grad(value.sum(), leaves, materialize_grads=True) if gradient else ()
    return [value, *found]


@pytest.mark.parametrize(
    "formula",
    [
        *("(x * 2) - (x * 2) + y", "2 * x - x", "x + 1e8 - 1e8", "(x + y) - (x + y)"),
        *("x / x", "y * x / x", "x * (y / x)", "x / (x / y)", "1 / (1 / x)", "x**3 / x"),
        *("sqrt(x) * sqrt(x)", "x * sqrt(x)", "sqrt(x**2)", "sqrt(x) / x", "(x * y)**0.5"),
        *("(x * y)**2", "(x / y)**2", "1 / (x * y)", "y / (2 * x)", "(3 * x)**2"),
        *("exp(x) * exp(-x) * y", "exp(x) / exp(x)", "exp(x)**2", "1 / exp(x)", "sqrt(exp(x))"),
        *("log(exp(x))", "exp(log(x))", "exp(2 * log(x))", "exp(y + log(x))", "log(x**2)"),
        *("x * log(x)", "(1 + x) * log1p(x)", "y * log(x) * x"),
        *("0 * x + y", "x * 0 - x", "0 / x", "mul(x, 0) + y", "x**0 + x"),
        *("x * 1e250 * 1e-250", "x / 1e300 * 1e300"),
        *("where(x <= x, x, 0)", "where(x < 0, 1, where(x >= 0, y, 3))"),
        *("div(x, x)", "sub(x, x)", "div(tanh(x), tanh(x))"),
        *("(-x)**2", "sin(-x)", "erf(-x) + x", "x * x * y", "x + x + y"),
    ],
)
def test_a_formula_is_what_torch_makes_of_its_text(formula: str) -> None:
    """Where a value is infinite on the way, derivatives are not compared: each takes its own way there."""
    assert_as_torch(chain(f"expr: {formula}"), gradient=formula in DERIVED)


#: Formulas whose derivatives are torch's too, in all these points.
DERIVED = {
    *("sqrt(x**2)", "log(exp(x))", "x * sqrt(x)", "sqrt(x) * sqrt(x)", "1 / (1 / x)", "log(x**2)"),
    *("exp(x)**2", "1 / exp(x)", "2 * x - x", "x + 1e8 - 1e8", "0 * x + y", "sin(-x)"),
}


@pytest.mark.parametrize(
    "step", ["sub: a", "div: a", "expr: x - a", "expr: a / x", "expr: where(a >= x, x, 1)"]
)
def test_a_value_of_two_names_is_not_simplified(step: str) -> None:
    assert_as_torch(chain("tanh: {name: a}", step), gradient=False)


def test_a_difference_of_softplus_has_a_value_at_infinity() -> None:
    assert_as_torch(chain("expr: 0.5 * softplus(x) - 2 * softplus(-x)"), gradient=True)


#: Formulas of one package, one an output.
COMPILED = [
    *("2 * input - input", "input / input", "input**3 / input", "(input * y)**2", "(input / y)**2"),
    *("sqrt(input**2)", "sqrt(input) * sqrt(input)", "exp(log(input))", "log(exp(input))"),
    *("exp(input) * exp(-input)", "0 * input + y", "where(input >= input, 1, 0) * y"),
    *("input + 1e8 - 1e8", "input * 1e30 * 1e-30"),
]


def test_kernels_keep_what_is_written(tmp_path: Path) -> None:
    """Neither the passes nor a compiler simplify what the program holds."""
    listed = ", ".join(f"f{n}" for n in range(len(COMPILED)))
    text = f"operands: {{y: full}}\noutputs: [{listed}]\nchain:\n"
    for n, formula in enumerate(COMPILED):
        text += f"  - expr: {{formula: '{formula}', name: f{n}}}\n"
    package = built_alone(tmp_path, "kept", text, [torch.float32, torch.float64])
    numbers = [n for n in NUMBERS if abs(n) not in (1e200, 1e-200)] + [3e25, -3e-25]
    for dtype in (torch.float32, torch.float64):
        pairs = torch.tensor([*itertools.product(numbers, numbers)], dtype=dtype)
        x, y = (pairs[:, n : n + 1].contiguous() for n in range(2))
        found = package.apply(x, y)
        wanted = run_chain(spec.parse(text, "kept"), x, {"y": y}, {})
        for formula, *both in zip(COMPILED, found, wanted, strict=True):
            torch.testing.assert_close(
                *both, equal_nan=True, msg=f"{formula}, {dtype}: {{}}".format
            )
