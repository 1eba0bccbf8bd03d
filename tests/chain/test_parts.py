"""Formulas that name the parts of one tensor, and gates whose first half is the gate."""

from __future__ import annotations

from types import ModuleType

import pytest
import sympy as sp
import torch
from conftest import DEVICES, dtypes_on_devices
from random_programs.build import in_turn
from shared.chains_of_texts import built_texts, hold_each_shape
from torch import Tensor
from torch.nn import functional as F

from fusegen.base.errors import SpecError
from fusegen.chain import Chain, derive
from fusegen.spec import parse
from fusegen.spec.chains import chains_of
from fusegen.spec.gradient_paths import reached_from
from fusegen.tools.check import verify

#: The gate of GPT-OSS, as docs/specs.md has it.
CLAMPED = """
arguments: {limit: {type: float, default: 7.0}}
chain:
  - expr:
      formula: "(clamp(up, min=-limit, max=limit) + 1) * swish(clamp(gate, max=limit), beta=1.702)"
      parts: [gate, up]
"""
#: Parts of the channels of a convolution, with other operands beside them.
CHANNELS = """
arguments: {in_channels: int, hidden: int, kernel_size: int}
operands: {scale: {kind: channel, init: ones, shape: [hidden, 1, 1]}, mask: {kind: full, dtype: bool}}
chain:
  - conv2d: {name: conv, out_channels: 3 * hidden}
  - expr: {formula: "where(mask, value * tanh(gate), scale)", parts: [gate, value, more], dim: 1}
  - softmax: {dim: 1}
  - mul: more
"""
#: An LSTM cell without its products: what is added first has all four parts.
LSTM = """
operands: {of_hidden: full, bias: col, cell: full}
outputs: [next_cell, next_hidden]
chain:
  - add: of_hidden
  - add: bias
  - expr: {name: next_cell, formula: "sigmoid(f) * cell + sigmoid(i) * tanh(g)", parts: [i, f, g, o]}
  - expr: {name: next_hidden, formula: "sigmoid(o) * tanh(next_cell)"}
"""
#: Parts of a projection that later steps take one by one; one is an output as it is, one has no use.
LATER = """
order: 1
operands: {weight: col, other: col}
outputs: [query, key, v]
chain:
  - expr: {formula: q, parts: [q, k, v, _]}
  - rms_norm: {name: query, weight: weight, eps: 1e-6}
  - expr: k
  - rms_norm: {name: key, weight: other, eps: 1e-6}
"""
#: Parts of the channels, of which a later segment takes one; of operands before them, all but `scale` have
#: all parts, and `scale` varies along rows.
IMAGE = """
dims: 4
order: 1
operands: {bias: channel, shift: {dims: [1, 3]}, scale: {dims: [0, 2]}}
chain:
  - add: bias
  - add: shift
  - mul: scale
  - expr: {formula: "a * sigmoid(b) + c", parts: [a, b, c], dim: 1}
  - softmax: {dim: 3}
  - normalize: {dim: 2}
  - expr: "x * tanh(c)"
"""
FIRST = "order: 1\nchain:\n  - {}: {{gate_first: true{}}}\n"
TEXTS = {
    "named_clamped": CLAMPED,
    "named_channels": CHANNELS,
    "named_lstm": LSTM,
    "named_later": LATER,
    "named_image": IMAGE,
    "named_glu": FIRST.format("glu", ""),
    "named_geglu": FIRST.format("geglu", ", approximate: tanh"),
    "named_reglu": "dims: 3\n" + FIRST.format("reglu", ", dim: 1"),
    "named_swiglu": FIRST.format("swiglu", ", beta: 1.5"),
}
ROWS = [(2,), (3, 2), (5, 62), (3, 66), (2, 3, 2046)]
SHAPES = {
    **dict.fromkeys(TEXTS, ROWS),
    "named_channels": [(2, 3, 1, 1), (2, 6, 3, 11)],
    "named_lstm": [(2, 4), (5, 124), (2, 3, 4092)],
    "named_later": [(2, 4), (5, 124), (2, 3, 4092)],
    "named_image": [(2, 3, 1, 1), (2, 6, 3, 11)],
    "named_reglu": [(1, 2, 1), (2, 6, 5), (3, 62, 33)],
}
#: What each is in torch, of the first half and the second.
GATES = {
    "named_glu": lambda gate, x: x * gate.sigmoid(),
    "named_geglu": lambda gate, x: x * F.gelu(gate, approximate="tanh"),
    "named_reglu": lambda gate, x: x * gate.relu(),
    "named_swiglu": lambda gate, x: x * gate * (1.5 * gate).sigmoid(),
}


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Chain, ModuleType]]:
    """Gives the chain and the built package of each spec."""
    return built_texts(tmp_path_factory, "named_halves", TEXTS, in_turn(TEXTS))


Named = dict[str, tuple[Chain, ModuleType]]


def clamped(x: Tensor, limit: float) -> Tensor:
    gate, up = x.chunk(2, -1)
    gate, up = gate.clamp(max=limit), up.clamp(min=-limit, max=limit)
    return (up + 1) * gate * torch.sigmoid(1.702 * gate)


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(TEXTS, in_turn(TEXTS)))
def test_every_shape(name: str, dtype: torch.dtype, device: str, named: Named) -> None:
    hold_each_shape(named[name], SHAPES[name], dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["named_clamped", "named_channels", "named_lstm"])
def test_gradcheck(name: str, device: str, named: Named) -> None:
    chain, package = named[name]
    verify.gradcheck(package, chain, training=False, device=device)


def test_a_clamped_gate_is_torchs_to_the_second_derivative(named: Named) -> None:
    _, package = named["named_clamped"]
    x = 6 * torch.randn(33, 62, dtype=torch.float64)
    assert (x > 2.5).any()
    found = []
    for function in (lambda x: package.apply(x, limit=2.5), lambda x: clamped(x, 2.5)):
        leaf = x.clone().requires_grad_()
        values = [function(leaf)]
        for _ in range(2):
            weight = torch.linspace(-1, 1, values[-1].numel(), dtype=x.dtype)
            total = (values[-1].reshape(-1) * weight).square().sum()
            values += torch.autograd.grad(total, leaf, create_graph=True)
        found.append(values)
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", in_turn(TEXTS)["named_clamped"])
def test_a_clamped_gate_of_numbers_at_the_edges_is_torchs(dtype: str, named: Named) -> None:
    """At the limits, at infinities and NaN, in each half."""
    _, package = named["named_clamped"]
    edges = torch.tensor([-torch.inf, -1e30, -7.0, -1.0, -0.0, 0.0, 7.0, 8.0, torch.inf, torch.nan])
    x = torch.cartesian_prod(edges, edges).to(getattr(torch, dtype)).requires_grad_()
    wide = x.detach().double().requires_grad_()
    ours, wanted = package.apply(x), clamped(wide, 7.0)
    close = {"rtol": 8e-3, "atol": 1e-6} if dtype == "bfloat16" else {"rtol": 1e-12, "atol": 1e-15}
    torch.testing.assert_close(ours.double(), wanted, equal_nan=True, **close)
    got = torch.autograd.grad(ours.double().sum(), x)[0].double()
    expected = torch.autograd.grad(wanted.sum(), wide)[0]
    finite = expected.isfinite()
    torch.testing.assert_close(got[finite], expected[finite], **close)
    assert torch.equal(got.isnan(), expected.isnan())


@pytest.mark.parametrize("name", GATES)
def test_the_first_half_is_the_gate(name: str, named: Named) -> None:
    _, package = named[name]
    dim = 1 if name == "named_reglu" else -1
    x = torch.randn(3, 10, 6, dtype=torch.float64, requires_grad=True)
    ours, wanted = package.apply(x), GATES[name](*x.chunk(2, dim))
    torch.testing.assert_close(ours, wanted)
    got, expected = (torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, wanted))
    torch.testing.assert_close(got, expected)


def test_a_module_runs_it_by_torch_if_its_source_is_changed(named: Named) -> None:
    """Step by step, as a hook wants it; the result is the same without the hook's change."""
    _, package = named["named_channels"]
    module = package.Module(3, 4, 1).double()
    x, mask = torch.randn(2, 3, 5, 5, dtype=torch.float64), torch.rand(2, 4, 5, 5) > 0.3
    fused = module(x, mask)
    module.conv.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(module(x, mask), fused)


@pytest.mark.parametrize(("names", "wanted"), [("a, b", -19), ("b, a", 8)])
def test_the_names_stand_in_the_order_of_the_parts(names: str, wanted: int) -> None:
    step = parse(PARTS.format('"a - 2 * b"', f"[{names}]"), "example").steps[0]
    assert step.op is not None
    assert step.op.formula(sp.Integer(1), sp.Integer(10), dim=-1, alternating=False) == wanted


PARTS = "chain:\n  - expr: {{formula: {}, parts: {}}}\n"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (PARTS.format('"a * b"', "a"), "must be two to 16 names, of the parts of x in their", 2),
        (PARTS.format('"a * b"', "[a]"), "must be two to 16 names, of the parts of x", 2),
        (PARTS.format('"a * b"', "[a, b, c]"), "no step uses c, a part of what reaches expr", 2),
        (PARTS.format('"a * a"', "[a, a]"), "two parts are called 'a'", 2),
        (PARTS.format('"a * x"', "[a, b]"), "the parts of x are called a and b", 2),
        (PARTS.format('"2 * a"', "[a, b]"), "no step uses b, .*: use it, or call it _ in parts", 2),
        (PARTS.format('"a * _"', "[a, _]"), "unknown name '_'", 2),
        (PARTS.format('"a * b"', "[a, b]").replace("{f", "{name: a, f"), "'a' is already", 2),
        (PARTS.format('"a * b"', "[a, b], alternating: true, dim: 0"), "along the last dim", 2),
        (
            PARTS.format('"a * b * c"', "[a, b, c], alternating: true"),
            "two parts may alternate by column, and these are 3: leave it out",
            2,
        ),
        (
            "chain:\n  - softmax\n" + PARTS.format('"a * b"', "[a, b]")[7:],
            "and softmax, which comes before it, computes more than element by element",
            3,
        ),
        (
            "chain:\n  - dropout: {name: u}\n" + PARTS.format('"a * b"', "[a, b]")[7:],
            "and u, which comes before it, computes more than element by element",
            3,
        ),
        (
            "chain:\n  - gelu: {name: u}\n"
            + PARTS.format('"a * b"', "[a, b]")[7:]
            + "  - add: u\n",
            "'u' is 2 parts, of which expr makes one",
            4,
        ),
        (PARTS.format('"x * b"', "[x, b]"), "'x' cannot be a name here: it is the activation", 2),
        (PARTS.format('"a * mean(b)"', "[a, b]"), "this one takes a row as a whole", 2),
        (PARTS.format('"rotate_half(a) * b"', "[a, b]"), "takes a row as a whole", 2),
        (
            "operands: {a: full}\n" + PARTS.format('"a * b"', "[a, b]"),
            "'a' is already the name of an argument or operand: choose another for this part",
            3,
        ),
        (
            'chain:\n  - expr: {formula: "a * b", parts: [a, b], dim: 0}\n',
            "the parts of .* are along the last dim: dim is -1 or 1",
            2,
        ),
        (
            'chain:\n  - expr: {formula: "a * b", parts: [a, b], dim: [0]}\n',
            "must be the dim of the parts, not ",
            2,
        ),
        (
            'chain:\n  - expr: {formula: "a * b", part: [a, b]}\n',
            "expr has no 'part'; did you mean 'parts'?",
            2,
        ),
        (
            "operands: {gate: full}\nchain:\n  - swiglu: {gate: gate, gate_first: true}\n",
            "takes gate_first for the halves of one tensor: drop it, or 'gate'",
            3,
        ),
        (
            'operands: {g: full}\nchain:\n  - expr: "glu(x, g, gate_first=true)"\n',
            "glu takes gate_first for the halves of one tensor: leave it out",
            3,
        ),
        ("chain:\n  - glu: {gate_first: 1}\n", "'gate_first' of glu must be true or false", 2),
    ],
)
def test_a_spec_that_cannot_be_is_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, "example")
    assert caught.value.line == line


def test_an_lstm_cell_is_torchs_to_the_second_derivative(named: Named) -> None:
    _, package = named["named_lstm"]
    torch.manual_seed(0)
    cell = torch.nn.LSTMCell(3, 5, dtype=torch.float64)
    x, hidden, before = (torch.randn(4, size, dtype=torch.float64) for size in (3, 5, 5))

    def ours(x: Tensor, hidden: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        of_hidden = F.linear(hidden, cell.weight_hh, cell.bias_hh)
        projected = F.linear(x, cell.weight_ih)
        found = package.apply(projected, of_hidden=of_hidden, bias=cell.bias_ih, cell=before)
        return found[1], found[0]

    found = []
    for function in (ours, lambda x, h, c: cell(x, (h, c))):
        leaves = [t.clone().requires_grad_() for t in (x, hidden, before)]
        values = list(function(*leaves))
        total = sum(value.square().sum() for value in values)
        first = torch.autograd.grad(total, [*leaves, *cell.parameters()], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        found.append([*values, *first, *second])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_parts_that_no_step_uses_have_the_gradient_zero(named: Named) -> None:
    _, package = named["named_later"]
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(2, dtype=torch.float64)
    _, key, value = package.apply(x, weight, weight)
    (gradient,) = torch.autograd.grad((key * value).sum(), x)
    assert not gradient[:, :2].any()
    assert gradient[:, 2:6].all()
    assert not gradient[:, 6:].any()
    torch.testing.assert_close(value, x[:, 4:6])


#: Parts of a product of which one goes into a later product.
PRODUCTS = """
arguments: {width: int}
order: 1
chain:
  - linear: {name: project, in_features: width, out_features: 3 * width}
  - expr: {formula: "relu(q) * k", parts: [q, k, v]}
  - linear: {name: mix, in_features: width, out_features: width}
  - mul: v
"""


def test_a_later_product_takes_a_part() -> None:
    chains = [derive(spec) for spec in chains_of(parse(PRODUCTS, "example"))]
    assert [chain.spec.outputs for chain in chains] == [("v", "expr"), ()]
    assert [operand.name for operand in chains[1].operands] == ["v", "mix_bias"]


def test_an_operand_is_as_wide_as_x_or_as_a_part() -> None:
    steps = PARTS.format('"a * b"', "[a, b]").removeprefix("chain:\n")
    text = f"operands: {{w: full}}\nchain:\n  - mul: w\n{steps}  - add: w\n"
    with pytest.raises(
        SpecError, match="'w' is as wide as x for one step, and as a part"
    ) as caught:
        derive(parse(text, "example"))
    assert caught.value.line == 5


@pytest.mark.parametrize(("formula", "last"), [("a + b", "sin(c)"), ("detach(a)", "sin(b * c)")])
def test_a_gradient_reaches_what_is_taken_apart_through_any_part(formula: str, last: str) -> None:
    text = (
        "operands: {w: full}\noutputs: [y, z]\nchain:\n  - mul: {name: whole, other: w}\n"
        f"  - expr: {{name: y, formula: {formula}, parts: [a, b, c]}}\n"
        f"  - expr: {{name: z, formula: {last}}}\n"
    )
    spec = parse(text, "example")
    assert {"x", "w", "whole"} <= reached_from(spec.steps, {"z"})
    assert ("whole" in reached_from(spec.steps, {"y"})) is ("detach" not in formula)
