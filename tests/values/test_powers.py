"""Powers whose exponent is no number: torch's values and derivatives, also at 0 and of negative bases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import sympy as sp
import torch
from conftest import DEVICES, once, shared
from shared.vocabulary import build_for_devices
from torch import Tensor

from fusegen import load
from fusegen.atoms import power
from fusegen.spec.formula import parse

ARGUMENT = "arguments: {gamma: float}\norder: 2\nchain:\n"
OPERAND = "operands: {e: full}\norder: 2\nchain:\n"
#: By name: a chain, and the same by torch.
CHAINS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "power_argument": (f"{ARGUMENT}  - expr: x ** gamma\n", lambda x, gamma: x**gamma),
    "power_argument_op": (f"{ARGUMENT}  - pow: gamma\n", lambda x, gamma: x**gamma),
    "power_operand": (f"{OPERAND}  - expr: x ** e\n", lambda x, e: x**e),
    "power_operand_op": (f"{OPERAND}  - pow: e\n", lambda x, e: x**e),
    "power_expression": (
        f"{OPERAND}  - expr: (x * x * x) ** (2 * e)\n",
        lambda x, e: (x * x * x) ** (2 * e),
    ),
    "power_subtracted": (
        f"{OPERAND.replace('full', 'scalar')}  - expr: (x + 1) ** e - x ** e\n",
        lambda x, e: (x + 1) ** e - x**e,
    ),
    "power_base": (f"{OPERAND}  - expr: 2 ** (x * e)\n", lambda x, e: 2 ** (x * e)),
}
BASES = (-2.0, -1.0, 0.0, 0.5, 2.0, 3.0, 1e-3)
EXPONENTS = (-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shared(tmp_path_factory) / "powers"
    once(
        tmp_path_factory,
        "powers",
        lambda: build_for_devices(folder, {name: text for name, (text, _) in CHAINS.items()}),
    )
    return folder / "generated"


def derivatives(value: Tensor, leaves: Sequence[Tensor], order: int) -> list[Tensor]:
    """Return a value and the derivatives of its sum by each leaf, up to an order."""
    found, last = [value], [value]
    for _ in range(order):
        last = [
            torch.zeros_like(leaf) if gradient is None else gradient
            for of in last
            for leaf, gradient in zip(
                leaves,
                torch.autograd.grad(of.sum(), leaves, create_graph=True, allow_unused=True)
                if of.requires_grad
                else [None] * len(leaves),
                strict=True,
            )
        ]
        found += last
    return [f.detach() for f in found]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CHAINS)
def test_value_and_gradients_are_those_of_torch(
    name: str, dtype: torch.dtype, exponent: float, device: str, out: Path
) -> None:
    _, by_torch = CHAINS[name]
    bases = torch.tensor([BASES], dtype=dtype, device=device)
    results = []
    for function in (load(name, out).apply, by_torch):
        x = bases.clone().requires_grad_()
        if "argument" in name:
            results.append(derivatives(function(x, gamma=exponent), [x], 1))
        else:
            whole = () if name == "power_subtracted" else bases.shape
            e = bases.new_full(whole, exponent).requires_grad_()
            results.append(derivatives(function(x, e), [x, e], 1))
    for found, wanted in zip(*results, strict=True):
        tolerance = 64 * torch.finfo(dtype).eps
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("name", ["power_argument", "power_operand", "power_operand_op"])
def test_second_derivative_by_the_base_is_that_of_torch(
    name: str, exponent: float, device: str, out: Path
) -> None:
    """torch's is NaN at 0**0 (0 times an infinity), where it is 0 here: x**0 is 1 everywhere."""
    x = torch.tensor([BASES], dtype=torch.float64, device=device, requires_grad=True)
    e = torch.full_like(x, exponent)
    apply = load(name, out).apply
    value = apply(x, gamma=exponent) if "argument" in name else apply(x, e)
    wanted = derivatives(x**e, [x], 2)[2]
    if exponent == 0:
        wanted = torch.zeros_like(wanted)
    found = derivatives(value, [x], 2)[2]
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=0, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_mixed_second_derivatives_are_exact_above_0(
    exponent: float, device: str, out: Path
) -> None:
    """Also at exponent 0, where torch's derivative of the base's gradient is 0, not 1 / x."""
    bases = [[0.5, 2.0, 3.0, 1e-3]]
    x = torch.tensor(bases, dtype=torch.float64, device=device, requires_grad=True)
    e = torch.full_like(x, exponent).requires_grad_()
    *_, by_x_and_e, by_e_and_x, twice_by_e = derivatives(
        load("power_operand", out).apply(x, e), [x, e], 2
    )
    mixed = (x ** (e - 1) * (1 + e * x.log())).detach()
    for found in (by_x_and_e, by_e_and_x):
        torch.testing.assert_close(found, mixed, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(twice_by_e, (x**e * x.log() ** 2).detach(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("text", ["x ** g", "x ** (g - 1)", "x ** x", "(x + 1) ** (g * x)"])
def test_every_power_with_a_variable_exponent_is_the_atom(text: str) -> None:
    x, g = sp.symbols("x g", real=True)
    formula = parse(text, {"x": x, "g": g})
    assert formula.has(power)
    assert all(part.exp.is_number for part in formula.atoms(sp.Pow))
