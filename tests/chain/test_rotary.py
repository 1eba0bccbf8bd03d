"""Rotary position embedding: torch's results to the third derivative, no copies, and errors with a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType

import pytest
import sympy as sp
import torch
from conftest import DEVICES, dtypes_on_devices
from shared.chains_of_texts import built_texts, hold_each_shape
from shared.derivatives import drawn, hold_third_derivative, hold_values_and_second_derivative
from torch import Tensor
from torch.nn import functional as F

from fusegen.atoms import COLS, at_part, halves, let, row_sum, second_half
from fusegen.base.errors import SpecError
from fusegen.chain import Chain, derive
from fusegen.ops import registry
from fusegen.spec import parse
from fusegen.tools.check import verify
from fusegen.tools.check.reference import run_chain
from fusegen.tools.check.reference_chain import run_programs
from fusegen.tools.check.reference_program import run_program
from fusegen.tools.manual.alone import backward_of, program_of

TABLES = "cos: {kind: full, gradient: false}, sin: {kind: full, gradient: false}"
TEXTS = {
    # The tables have gradients too.
    "rotary_formula": (
        "order: 3\noperands: {cos: full, sin: full}\n"
        'chain:\n  - expr: "x * cos + rotate_half(x) * sin"\n'
    ),
    # A norm of the row before it, values of earlier steps after it, and several outputs.
    "rotary_normed": (
        f"dims: 4\noperands: {{residual: full, weight: {{kind: col, dtype: float32}}, {TABLES}}}\n"
        "outputs: [total, turned]\nchain:\n"
        "  - add: {other: residual, name: total}\n"
        "  - rms_norm: {weight: weight, eps: 1e-6}\n"
        '  - expr: {formula: "rope(x, cos, sin) + total", name: turned}\n'
    ),
    # Steps that need whole rows are segments of their own.
    "rotary_apart": (
        "order: 1\noperands: {cos: col, sin: col, factor: row, mask: {kind: full, dtype: bool}}\nchain:\n"
        "  - softmax: {name: share}\n"
        "  - rope: {cos: cos, sin: sin}\n"
        '  - expr: "where(mask, rotate_half(share * factor), x - mean(x))"\n'
        "  - log_softmax\n"
        "  - rotate_half\n"
    ),
}
SHAPES = {
    "rotary_formula": [(2,), (1, 2), (31, 6), (33, 66), (1023, 64), (2, 3, 5, 128), (5, 8198)],
    "rotary_normed": [
        *((1, 1, 1, 2), (3, 2, 33, 6), (2, 3, 31, 64), (1, 3, 5, 66)),
        *((1, 2, 1, 8198), (1, 1, 1, 40006)),  # rows that a block and a cluster hold
    ],
    "rotary_apart": [(1, 2), (31, 6), (33, 66)],
}
#: One library holds all three: torch's headers are read once.
DTYPES = dict.fromkeys(TEXTS, ("float64", "bfloat16"))
Built = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives the chain and the built package of each spec."""
    return built_texts(tmp_path_factory, "rotary", TEXTS, DTYPES)


def rotate_half(x: Tensor) -> Tensor:
    """As transformers has it."""
    middle = x.shape[-1] // 2
    return torch.cat((-x[..., middle:], x[..., :middle]), -1)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + rotate_half(x) * sin


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(TEXTS, DTYPES))
def test_every_shape(name: str, dtype: torch.dtype, device: str, built: Built) -> None:
    hold_each_shape(built[name], SHAPES[name], dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TEXTS)
def test_gradcheck(name: str, device: str, built: Built) -> None:
    chain, package = built[name]
    verify.gradcheck(package, chain, training=False, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("table", [(5, 6), (2, 1, 5, 6), (2, 3, 5, 6)])
def test_it_is_what_models_compute_to_the_third_derivative(
    table: tuple[int, ...], device: str, built: Built
) -> None:
    """Of heads that come after the length in memory, with tables that broadcast."""
    _, package = built["rotary_formula"]
    x = drawn(2, 5, 3, 6, device=device).transpose(1, 2)
    tables = drawn(2, *table, device=device, seed=1).unbind()
    hold_third_derivative(package.apply, rope, (x, *tables))


@pytest.mark.parametrize("device", DEVICES)
def test_a_norm_before_it_is_in_the_same_kernel(device: str, built: Built) -> None:
    chain, package = built["rotary_normed"]
    assert len(chain.segments) == 1
    x, residual = drawn(2, 2, 5, 3, 6, device=device).transpose(2, 3).unbind()
    weight = drawn(6, device=device, seed=1)
    cos, sin = drawn(2, 5, 6, device=device, seed=2).unbind()

    def torchs(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        total = x + residual
        return total, rope(F.rms_norm(total, (6,), weight, 1e-6), cos, sin) + total

    def ours(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = package.apply(x, residual, weight, cos, sin)
        return result

    hold_values_and_second_derivative(ours, torchs, (x, residual, weight))


@pytest.mark.parametrize("device", DEVICES)
def test_it_rounds_once_where_eager_rounds_each_step(device: str, built: Built) -> None:
    _, package = built["rotary_formula"]
    x = drawn(2, 3, 31, 64, device=device)
    tables = drawn(2, 31, 64, device=device, seed=1).unbind()
    given = [t.bfloat16().requires_grad_() for t in (x, *tables)]
    cotangent = drawn(2, 3, 31, 64, device=device, seed=2).bfloat16()

    def run(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        leaves = [t.detach().to(dtype).requires_grad_() for t in given]
        value = function(*leaves)
        return [value, *torch.autograd.grad(value, leaves, cotangent.to(dtype))]

    truth = run(rope, torch.float64)
    ours, eager = (run(function, torch.bfloat16) for function in (package.apply, rope))
    for got, theirs, exact in zip(ours, eager, truth, strict=True):
        assert (got - exact).abs().max() <= (theirs - exact).abs().max()
    for got, theirs, exact in [*zip(ours, eager, truth, strict=True)][:2]:
        assert (got - exact).abs().mean() < 0.75 * (theirs - exact).abs().mean()


def test_transforms_see_torchs_function(built: Built) -> None:
    """vmap over x, forward mode, and a Hessian."""
    _, package = built["rotary_formula"]
    x, (cos, sin) = drawn(3, 4, 10), drawn(2, 4, 10, seed=1).unbind()
    for transformed in (
        lambda f: torch.func.vmap(f)(x),
        lambda f: torch.func.jvp(f, (x[0],), (x[1],)),
        lambda f: torch.func.hessian(lambda t: f(t).square().sum())(x[0]),
        lambda f: torch.func.vmap(torch.func.grad(lambda t: f(t).square().sum()))(x),
    ):
        got = transformed(lambda t: package.apply(t, cos, sin))
        torch.testing.assert_close(got, transformed(lambda t: rope(t, cos, sin)))


def test_compiled_it_is_the_same(built: Built) -> None:
    _, package = built["rotary_formula"]
    x, (cos, sin) = drawn(2, 3, 5, 6).requires_grad_(), drawn(2, 5, 6, seed=1).unbind()
    compiled = torch.compile(
        lambda x: package.apply(x, cos, sin) * 2, backend="aot_eager", fullgraph=True
    )
    got = compiled(x)
    torch.testing.assert_close(got, 2 * rope(x, cos, sin))
    (gradient,) = torch.autograd.grad(got.square().sum(), x)
    torch.testing.assert_close(
        gradient, torch.autograd.grad((2 * rope(x, cos, sin)).square().sum(), x)[0]
    )


def test_nothing_is_copied_or_joined(built: Built) -> None:
    """Neither heads after the length, nor tables that broadcast, nor the halves of the result."""
    _, package = built["rotary_normed"]
    x, residual = drawn(2, 2, 31, 3, 64).transpose(2, 3).unbind()
    cos, sin = drawn(2, 31, 64, seed=1).unbind()
    x.requires_grad_()
    with torch.profiler.profile() as profile:
        total, turned = package.apply(x, residual, drawn(64), cos, sin)
        torch.autograd.grad((total, turned), x, (residual, residual))
    names = {event.key for event in profile.key_averages()}
    copies = {"contiguous", "clone", "copy_", "cat", "chunk"}
    assert not names & {f"aten::{name}" for name in copies}


def test_a_pointwise_result_has_the_strides_of_x(built: Built) -> None:
    _, package = built["rotary_formula"]
    x = drawn(2, 31, 3, 64).transpose(1, 2)
    assert package.apply(x, *drawn(2, 31, 64)).stride() == x.stride()


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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("shape", "table", "message"),
    [
        (
            (3, 5),
            (3, 5),
            r"x: expected two halves along dim -1, got shape \(3, 5\); an even size is needed",
        ),
        ((), (), r"x: expected two halves along dim -1, got shape \(\)$"),
        ((3, 8), (3, 4), r"cos: expected shape \(3, 8\) for x of shape \(3, 8\), got \(3, 4\)"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(
    shape: tuple[int, ...], table: tuple[int, ...], message: str, device: str, built: Built
) -> None:
    _, package = built["rotary_formula"]
    with pytest.raises(ValueError, match=message):
        package.apply(*(drawn(*size, device=device) for size in (shape, table, table)))


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
