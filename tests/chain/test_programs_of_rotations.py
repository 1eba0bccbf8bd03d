"""What rotations become in a chain: programs, their derivatives, segments, and errors with a remedy."""

from __future__ import annotations

import re

import pytest
import sympy as sp
import torch
from shared.derivatives import drawn

from fusegen.atoms import COLS, at_part, halves, let, row_sum, second_half
from fusegen.base.errors import SpecError
from fusegen.chain import derive
from fusegen.ops import registry
from fusegen.spec import parse
from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain
from fusegen.tools.check.reference_chain import run_programs
from fusegen.tools.check.reference_program import run_program
from fusegen.tools.manual.alone import backward_of, program_of


def test_tables_of_rope_have_no_gradient() -> None:
    """So its backward reads the gradient and the tables, and writes one tensor."""
    chain = derive(parse("operands: {c: full, s: full}\nchain: [rope: {cos: c, sin: s}]\n", "it"))
    (mode,) = chain.modes
    assert [*mode.programs[1].returned] == ["grad_x"]
    assert {o.tensor for o in mode.kernels[1].parts[0].inputs.full} == {"c", "s", "grad_y"}


def test_the_derivative_turns_back() -> None:
    """The transpose of a rotation is its inverse, found by the calculus."""
    program = program_of(registry()["rotate_half"])
    x, x_half = drawn(2, 3, 4).unbind()
    turned = run_program(program, {"x": x, "x_half": x_half})
    assert torch.equal(turned["y"], -x_half)
    assert torch.equal(turned["y_half"], x)
    given = {"x": x, "x_half": x_half, "grad_y": turned["y"], "grad_y_half": turned["y_half"]}
    back = run_program(backward_of(program), given)
    assert torch.equal(back["grad_x"], x)
    assert torch.equal(back["grad_x_half"], x_half)


def test_a_formula_in_one_half() -> None:
    x, a, b = sp.symbols("x a b", real=True)
    values = {x: (a, b)}
    mixed = halves(second_half(x) * x, let("part", x / COLS) + row_sum(x**2))
    assert at_part(mixed, 0, values) == a * b
    assert at_part(mixed, 1, values) == let("part", b / (2 * COLS)) + row_sum(a**2 + b**2)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (
            'operands: {s: scalar}\nchain:\n  - expr: "x + rotate_half(s)"\n',
            "takes a half of what is the same in every column",
            3,
        ),
        (
            "chain:\n  - mean: {dim: -1, keepdim: true}\n  - rotate_half\n",
            "an earlier step has reduced the columns; put it before",
            3,
        ),
        (
            'operands: {c: full, s: full}\nchain:\n  - expr: "rope(x, c, s)"\n',
            "or an operand with `gradient: false`",
            3,
        ),
        ("operands: {c: full}\nchain:\n  - rope: {cos: c}\n", "rope needs its operand 'sin'", 3),
        (
            "operands:\n  w: {kind: col, init: ones, shape: [4], gradient: false}\nchain:\n  - mul: w\n",
            "is a parameter, which has a gradient",
            2,
        ),
        (
            'chain:\n  - expr: "rotate_half(softmax(x))"\n',
            "it takes a maximum, as softmax, amax and std do, .* make two steps of it",
            2,
        ),
        (
            'dims: 3\nchain:\n  - expr: {formula: "rotate_half(x) - mean(x)", dim: 1}\n',
            "or reduces other dims than the last: make two steps of it",
            3,
        ),
        (
            "dims: 3\noperands: {r: full}\nchain:\n  - mean: {dim: 2, keepdim: true}\n"
            '  - expr: "rotate_half(r) + x"\n',
            "makes what reaches it larger: make two chains",
            5,
        ),
    ],
)
def test_a_spec_that_cannot_be_is_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        derive(parse(text, "example"))
    assert caught.value.line == line


#: Chains of rotations among other steps, the operands by their names.
AMONG = {
    "a sum of both halves": 'expr: "x / sqrt(mean(x**2) + 1)", expr: "x * sum(rotate_half(x)**3)"',
    "a value of rows": 'exp: {name: a}, mean: {dim: -1, keepdim: true}, expr: "rotate_half(a) * x + r"',
    "a value of both kinds": 'tanh: {name: a}, softmax: {name: b}, expr: "rotate_half(a * b) + b * x", exp',
    "turned twice": 'rotate_half: {name: a}, expr: "rotate_half(x * c) * a + rotate_half(rotate_half(x))"',
    "a condition": 'expr: "where(rotate_half(x) > f, rotate_half(f), where(m, x, 2))"',
    "other values alone": 'gelu: {name: a}, tanh: {name: b}, expr: "rotate_half(a) * f + b"',
    "norms and spreads": 'layer_norm, rotate_half, expr: "x * std(x)", expr: "rotate_half(x) * norm(x)"',
    "a gate before it": "glu, mul: c, rope: {cos: f, sin: f}",
    "an int of rows": "causal_mask: p, exp, rotate_half",
    "a loss": "rotate_half, mse_loss: f",
    "dropped": "rotate_half, sum: {dim: -1}",
    "a product": "linear: {in_features: 3, out_features: 8}, rotate_half",
}
OPERANDS = {
    "c": "col",
    "f": "full",
    "m": "{kind: full, dtype: bool}",
    "p": "{kind: row, dtype: int64}",
    "r": "row",
}


@pytest.mark.parametrize("name", AMONG)
def test_what_it_is_among_other_steps(name: str) -> None:
    """Its programs against torch's own functions: value and gradients."""
    words = set(re.findall(r"\w+", re.sub(r"\w+:(?! [cfpr]\b)", "", AMONG[name])))
    used = [f"{n}: {kind}" for n, kind in OPERANDS.items() if n in words]
    text = f"order: 1\noperands: {{{', '.join(used)}}}\nchain: [{AMONG[name]}]\n"
    chain = derive(parse(text if used else text.replace("operands: {}\n", ""), "example"))
    case = verify.make_case(chain, chain.example_shape(3, 8), training=False)
    moving = [o.name for o in chain.operands if o.differentiable]
    found = []
    for run in (
        lambda x, given: run_programs(chain, x, given, {}),
        lambda x, given: run_chain(chain.spec, x, given, {}),
    ):
        leaves = {n: case.operands[n].clone().requires_grad_() for n in moving}
        x = case.x.clone().requires_grad_()
        value = run(x, {**case.operands, **leaves})
        weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).reshape(value.shape)
        found.append([value, *torch.autograd.grad(value, [x, *leaves.values()], weights)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("chain", "segments"),
    [
        ("gelu, rotate_half, tanh", ["gelu rotate_half tanh"]),
        ("rms_norm: {eps: 1e-6}, rotate_half, layer_norm", ["rms_norm rotate_half layer_norm"]),
        ("tanh, rotate_half, dropout", ["tanh rotate_half", "dropout"]),
        ("softmax, tanh, rotate_half, exp, softmax", ["softmax tanh", "rotate_half exp", "softmax_2"]),
        ("glu, gelu, rotate_half", ["glu gelu", "rotate_half"]),
        ("rotate_half, group_norm: {features: 8, num_groups: 2}", ["rotate_half", "group_norm"]),
        ("rotate_half, mse_loss: t", ["rotate_half mse_loss"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dims", [0, 4])
def test_what_needs_whole_rows_is_a_segment_of_its_own(
    chain: str, segments: list[str], dims: int
) -> None:
    if dims == 4:
        chain = chain.replace("softmax", "softmax: {dim: 3}").replace("glu,", "glu: {dim: 3},")
    operands = "operands: {t: full}\n" if "mse" in chain else ""
    spec = parse(f"order: 1\ndims: {dims}\n{operands}chain: [{chain}]\n", "example")
    derived = derive(spec)
    assert [
        " ".join(step.label for step in segment.steps) for segment in derived.segments
    ] == segments
    shape = (2, 8, 6, 16) if dims else (6, 16)
    width = 8 if "glu: {" in chain or chain.startswith("glu") else 16
    assert derived.output_shapes(shape) == {
        spec.steps[-1].label: () if "mse" in chain else (*shape[:-1], width)
    }
