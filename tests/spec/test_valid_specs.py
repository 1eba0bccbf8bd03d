"""Valid specs with unusual forms: they render, and their programs give what torch gives."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import pytest
import sympy as sp
import torch
from torch import Tensor
from torch.nn import functional

from fusegen import atoms, chain, render
from fusegen.atoms.values import compiled, constant, evaluate
from fusegen.base.errors import SpecError
from fusegen.spec import parse
from fusegen.tools.check.reference_program import run_program

EXPR = 'chain: [{expr: "%s"}]\n'
Function = Callable[[Tensor, Tensor], Tensor]

#: A chain over x and the operand w, and the same by torch.
FORMS: dict[str, tuple[str, Function]] = {
    # atoms of constants
    "lerp": (
        "operands: {w: full}\nchain: [{lerp: {end: w, weight: 0.3}}]\n",
        lambda x, w: torch.lerp(x, w, 0.3),
    ),
    "lerp beyond a half": (
        "operands: {w: full}\nchain: [{lerp: {end: w, weight: -0.7}}]\n",
        lambda x, w: torch.lerp(x, w, -0.7),
    ),
    "geglu": (
        "chain: [{geglu: {gate: 1}}]\n",
        lambda x, _: x * functional.gelu(torch.ones((), dtype=x.dtype)),
    ),
    "swiglu": (
        "chain: [{swiglu: {gate: -2}}]\n",
        lambda x, _: x * functional.silu(torch.tensor(-2.0, dtype=x.dtype)),
    ),
    "l1_loss of x with itself": (
        "chain: [{l1_loss: {target: input}}]\n",
        lambda x, _: functional.l1_loss(x, x),
    ),
    # formulas with kinks, poles and branch points on a short interval
    "kink": (
        'chain: [tanh, {expr: "sign(x)*log1p(abs(x))"}]\n',
        lambda x, _: x.tanh().sign() * x.tanh().abs().log1p(),
    ),
    "kink of exp": (
        'chain: [hardtanh, {expr: "exp(-abs(x))"}]\n',
        lambda x, _: torch.exp(-functional.hardtanh(x).abs()),
    ),
    "root": (
        'chain: [sigmoid, {expr: "exp(sqrt(x))"}]\n',
        lambda x, _: torch.exp(x.sigmoid().sqrt()),
    ),
    "pole": ('chain: [tanh, {expr: "exp(1 / x)"}]\n', lambda x, _: torch.exp(1 / x.tanh())),
    "logarithm": ('chain: [tanh, {expr: "log(x)"}]\n', lambda x, _: x.tanh().log()),
    "logarithm of a square": (
        'chain: [tanh, {expr: "log1p(x) * cos(x**2)"}]\n',
        lambda x, _: x.tanh().log1p() * x.tanh().square().cos(),
    ),
    # sums whose terms add up to nothing
    "var": (
        EXPR % "var(log_softmax(x)) + x",
        lambda x, _: x.log_softmax(-1).var(-1, keepdim=True) + x,
    ),
    "std": (
        EXPR % "std(log_softmax(x)) + x",
        lambda x, _: x.log_softmax(-1).std(-1, keepdim=True) + x,
    ),
    "more correction than columns": (
        "chain: [{var: {dim: 1, correction: 9, keepdim: true}}]\n",
        lambda x, _: x.var(1, correction=9, keepdim=True),
    ),
    "correction": (
        "chain: [{var: {dim: 1, correction: 3, keepdim: true}}]\n",
        lambda x, _: x.var(1, correction=3, keepdim=True),
    ),
}


def program_values(text: str, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return a spec's result and the gradient of its sum, by its programs; they must render too."""
    derived = chain.derive(parse(text, "form"))
    render.render(derived)
    (mode,) = derived.modes
    forward, backward = mode.programs[:2]
    given = {"x": x, "w": w}
    taken = {i.name: given[i.name] for i in forward.inputs if i.name in given}
    y = run_program(forward, taken)["y"]
    grads = run_program(backward, {**taken, "grad_y": torch.ones_like(y)})
    return y, grads["grad_x"]


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize("form", FORMS)
def test_an_unusual_form_is_torchs(form: str) -> None:
    text, function = FORMS[form]
    torch.manual_seed(5)
    x = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    w = torch.randn(6, 7, dtype=torch.float64)
    wanted = function(x, w)
    (grad,) = torch.autograd.grad(wanted.sum(), x)
    y, found = program_values(text, x.detach(), w)
    torch.testing.assert_close(y, wanted.detach(), equal_nan=True, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found, grad, equal_nan=True, rtol=1e-11, atol=1e-13)


#: The row functions that docs/specs.md promises to formulas, each by torch over the last dim.
ROW_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **dict.fromkeys(("amax", "max"), lambda x: x.amax(-1, keepdim=True)),
    **dict.fromkeys(("amin", "min"), lambda x: x.amin(-1, keepdim=True)),
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True),
    "mean": lambda x: x.mean(-1, keepdim=True),
    "norm": lambda x: x.norm(dim=-1, keepdim=True),
    "std": lambda x: x.std(-1, keepdim=True),
    "sum": lambda x: x.sum(-1, keepdim=True),
    "var": lambda x: x.var(-1, keepdim=True),
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
}


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
def test_a_formula_with_a_dim_may_use_every_row_function(name: str) -> None:
    torch.manual_seed(5)
    x = torch.randn(6, 7, dtype=torch.float64, requires_grad=True)
    wanted = x / ROW_FUNCTIONS[name](x)
    (grad,) = torch.autograd.grad(wanted.sum(), x)
    text = f'chain: [{{expr: {{formula: "x / {name}(x)", dim: 1}}}}]\n'
    y, found = program_values(text, x.detach(), x.detach())
    torch.testing.assert_close(y, wanted.detach())
    torch.testing.assert_close(found, grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ROW_FUNCTIONS)
def test_a_row_function_without_a_dim_decides_the_layout(name: str) -> None:
    """Those that are made of others have parts with names, which hid that they reduce a row."""
    derived = chain.derive(parse(f'dims: 4\nchain: [{{expr: "x / {name}(x)"}}]\n', "form"))
    (segment,) = derived.segments
    assert (segment.layout.first, segment.layout.last) == (-1, -1)
    norm = "{group_norm: {num_groups: 2, features: 4}}"
    grouped = parse(f'dims: 4\nchain: [{norm}, {{expr: "x / {name}(x)"}}]\n', "form")
    with pytest.raises(SpecError, match="give it a dim"):
        chain.derive(grouped)


@pytest.mark.parametrize("op", ["var", "std"])
@pytest.mark.parametrize("before", ["mean", "max", "sum", "logsumexp"])
def test_the_variance_of_one_element_is_refused(op: str, before: str) -> None:
    text = f"chain:\n  - {before}: {{dim: 1, keepdim: true}}\n  - {op}: {{dim: 1}}\n"
    with pytest.raises(SpecError, match=r"reduced the row to one element.*correction: 0") as found:
        chain.derive(parse(text, "form"))
    assert found.value.line == 3


def test_a_constant_is_folded_to_the_nearest_double() -> None:
    assert constant(atoms.normcdf(sp.Integer(1)) * 2) == 2 * 0.8413447460685429
    assert constant(atoms.absolute(sp.Rational(-1, 3))) == 1 / 3
    assert constant(sp.exp(sp.Integer(1000))) == float("inf")
    assert constant(sp.log(sp.Integer(-1))) is None
    assert constant(sp.zoo) is None
    assert constant(atoms.RowSum(sp.Integer(1))) is None


def test_a_compiled_formula_is_the_formula() -> None:
    x = sp.Symbol("x", real=True)
    formula = (x * atoms.sigmoid(2 * x) + atoms.tanh(x) ** 3 * sp.exp(-x / 3)) / (1 + x**2) + sp.pi
    function = compiled(formula + sp.sqrt(1 + atoms.sech2(x)) * sp.Rational(1, 3), x)
    for digits in (20, 60):
        with mpmath.workdps(digits):
            for at in ("0", "-1.25", "3e-9", "2"):
                wanted = evaluate(
                    formula + sp.sqrt(1 + atoms.sech2(x)) * sp.Rational(1, 3), {x: mpmath.mpf(at)}
                )
                assert abs(function(mpmath.mpf(at)) / wanted - 1) < mpmath.mpf(10) ** (3 - digits)


def test_a_row_that_no_tensor_of_its_size_reaches_is_reduced() -> None:
    """After a broadcast a segment may read nothing of the activation's size: its kernel has no such input."""
    text = (
        "dims: 4\norder: 1\noperands: {bias: {kind: channel}}\nchain:\n"
        "  - min: {dim: 1, keepdim: true}\n  - sum: {dim: 2, keepdim: true}\n"
        "  - add: bias\n  - expr: x * sigmoid(x) + mean(x)\n"
    )
    derived = chain.derive(parse(text, "form"))
    assert not derived.segments[-1].modes[0].kernels[0].inputs.full
    render.render(derived)


def test_a_stage_that_only_draws_is_rendered() -> None:
    """The draws of a row are kept in its first stage, which may compute nothing else."""
    text = (
        "arguments: {in_channels: int, out_channels: int, kernel_size: int}\norder: 1\nchain:\n"
        "  - conv2d: {name: conv}\n  - dropout: {name: early, p: 0.25}\n"
        "  - amax: {dim: 3, keepdim: true}\n  - batch_norm: {name: bn}\n"
        "  - dropout: {name: late, p: 0.25}\n  - expr: x * early - bn\n"
    )
    derived = chain.derive(parse(text, "form"))
    render.render(derived)
