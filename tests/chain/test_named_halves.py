"""Formulas that name the two halves of one tensor, and gates whose first half is the gate."""

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
from fusegen.chain import Chain
from fusegen.spec import parse
from fusegen.tools.check import verify

#: The gate of GPT-OSS, as docs/specs.md has it.
CLAMPED = """
arguments: {limit: {type: float, default: 7.0}}
chain:
  - expr:
      formula: "(clamp(up, min=-limit, max=limit) + 1) * swish(clamp(gate, max=limit), beta=1.702)"
      halves: [gate, up]
"""
#: Halves of the channels of a convolution, with other operands beside them.
CHANNELS = """
arguments: {in_channels: int, hidden: int, kernel_size: int}
operands: {scale: {kind: channel, init: ones, shape: [hidden, 1, 1]}, mask: {kind: full, dtype: bool}}
chain:
  - conv2d: {name: conv, out_channels: 2 * hidden}
  - expr: {formula: "where(mask, value * tanh(gate), scale)", halves: [gate, value], dim: 1}
  - softmax: {dim: 1}
"""
FIRST = "order: 1\nchain:\n  - {}: {{gate_first: true{}}}\n"
TEXTS = {
    "named_clamped": CLAMPED,
    "named_channels": CHANNELS,
    "named_glu": FIRST.format("glu", ""),
    "named_geglu": FIRST.format("geglu", ", approximate: tanh"),
    "named_reglu": "dims: 3\n" + FIRST.format("reglu", ", dim: 1"),
    "named_swiglu": FIRST.format("swiglu", ", beta: 1.5"),
}
ROWS = [(2,), (3, 2), (5, 62), (3, 66), (2, 3, 2046)]
SHAPES = {
    **dict.fromkeys(TEXTS, ROWS),
    "named_channels": [(2, 2, 1, 1), (2, 6, 3, 11)],
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
@pytest.mark.parametrize("name", ["named_clamped", "named_channels"])
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
def test_the_names_stand_in_the_order_of_the_halves(names: str, wanted: int) -> None:
    step = parse(HALVES.format('"a - 2 * b"', f"[{names}]"), "example").steps[0]
    assert step.op is not None
    assert step.op.formula(sp.Integer(1), sp.Integer(10), dim=-1, alternating=False) == wanted


HALVES = "chain:\n  - expr: {{formula: {}, halves: {}}}\n"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (HALVES.format('"a * b"', "a"), "must be two names, of the first half and the second", 2),
        (HALVES.format('"a * b"', "[a, b, c]"), "must be two names, of the first half", 2),
        (HALVES.format('"a * a"', "[a, a]"), "both halves are called 'a'", 2),
        (HALVES.format('"a * x"', "[a, b]"), "the halves of x are called a and b", 2),
        (HALVES.format('"2 * a"', "[a, b]"), "does not depend on b, one of its halves", 2),
        (HALVES.format('"x * b"', "[x, b]"), "'x' cannot be a name here: it is the activation", 2),
        (HALVES.format('"a * mean(b)"', "[a, b]"), "this one takes a row as a whole", 2),
        (HALVES.format('"rotate_half(a) * b"', "[a, b]"), "takes a row as a whole", 2),
        (
            "operands: {a: full}\n" + HALVES.format('"a * b"', "[a, b]"),
            "'a' is already the name of an operand: choose another for this half",
            3,
        ),
        (
            'chain:\n  - expr: {formula: "a * b", halves: [a, b], dim: 0}\n',
            "the halves of .* are along the last dim: dim is -1 or 1",
            2,
        ),
        (
            'chain:\n  - expr: {formula: "a * b", halves: [a, b], dim: [0]}\n',
            "must be the dim of the halves, not ",
            2,
        ),
        (
            'chain:\n  - gelu\n  - expr: {formula: "a * b", halves: [a, b]}\n',
            "expr with halves takes the halves of x or of the product: put it first, or directly",
            3,
        ),
        (
            'chain:\n  - expr: {formula: "a * b", halfs: [a, b]}\n',
            "expr has no 'halfs'; did you mean 'halves'?",
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
