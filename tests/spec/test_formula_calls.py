"""Calls of ops in formulas: which can be called, with what, and that a call is what the op is as a step."""

from __future__ import annotations

import time
from typing import Any

import pytest
import sympy as sp
import torch

from fusegen import atoms
from fusegen.atoms.special import zero
from fusegen.atoms.values import evaluate
from fusegen.base.errors import SpecError
from fusegen.chain import derive
from fusegen.ops import Op, call, registry
from fusegen.spec import parse as parse_spec
from fusegen.spec.formula import FormulaError, number, parse
from fusegen.spec.formula.calls import refusal
from fusegen.spec.formula.functions import functions
from fusegen.tools.check.compare import make_case
from fusegen.tools.check.reference_chain import run_programs

X, A, B = (sp.Symbol(name, real=True) for name in "xab")
SYMBOLS = {"x": X, "a": A, "b": B}
#: What formulas cannot call, beside sources.
REFUSED = {
    *("dropout", "alpha_dropout", "batch_norm", "instance_norm", "group_norm"),
    *("argmax", "argmin", "cross_entropy", "nll_loss", "causal_mask", "where", "masked_fill"),
}
#: Values of required attributes, and of those whose defaults a formula cannot have.
GIVEN = {"reduction": "none", "eps": 1e-6, "threshold": 0.5, "value": 2.0, "min": -1.0}
#: Functions of formulas that are not the op of the same name, and an op whose operands get no gradient.
OTHERS = {"max", "min", "softplus", "where", "rope"}
CALLED = [name for name, op in registry().items() if not refusal(op) and name not in OTHERS]


def read(text: str) -> Any:
    return parse(text, SYMBOLS)


def call_of(op: Op) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a call with every operand and the needed attributes, and these."""
    needed = [n for n in op.operands if n not in op.constant]
    operands = dict(zip(needed, (A, B), strict=False))
    attributes = {
        n: v
        for n, v in GIVEN.items()
        if n in op.attributes and (n in op.required or n in ("reduction", "min"))
    }
    parts = ["x", *map(str, operands.values()), *(f"{n}={v!r}" for n, v in attributes.items())]
    return f"{op.name}({', '.join(parts)})", operands, attributes


def test_what_formulas_cannot_call() -> None:
    refused = {name for name, op in registry().items() if refusal(op) and not op.source}
    assert refused == REFUSED


@pytest.mark.parametrize("name", CALLED)
def test_a_call_is_the_ops_own_formula(name: str) -> None:
    op = registry()[name]
    text, operands, attributes = call_of(op)
    found = read(text)
    expected = call(op, X, operands, {**attributes, **dict.fromkeys(op.dims, -1)})
    if name not in functions():
        assert str(found.args[0]) == name
    assert (found.value if isinstance(found, atoms.Let) else found) == expected


@pytest.mark.parametrize("alias", ["silu", "scale", "multiply", "clip", "absolute", "logsigmoid"])
def test_aliases_are_called_too(alias: str) -> None:
    given = {"clip": "x, min=0", "scale": "x, a", "multiply": "x, a"}.get(alias, "x")
    assert read(f"{alias}({given})").free_symbols >= {X}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gelu(x) * a", A * atoms.let("gelu", X * atoms.normcdf(X))),
        ("add(x, a, alpha=2)", atoms.let("add", X + 2 * A)),
        ("sub(x, alpha=1/2, other=a)", atoms.let("sub", X - number(0.5) * A)),
        ("square(2 * x)", atoms.let("square", atoms.let("argument", 2 * X) ** 2)),
        ("mul(x, x * a)", atoms.let("mul", X * atoms.let("other", X * A))),
        ("norm(x, p=1)", atoms.let("norm", atoms.let("power", atoms.row_sum(atoms.absolute(X))))),
        ("norm(x, p='inf')", atoms.let("norm", atoms.row_max(atoms.absolute(X)))),
        ("pow(2, x)", atoms.let("pow", atoms.power(2, X))),
        ("softplus(x)", atoms.softplus(X)),
        ("glu(x, a)", atoms.let("glu", X * atoms.sigmoid(A))),
        ("prelu(x, a)", atoms.let("prelu", atoms.where(X > 0, X, A * X))),
        # constants are folded
        ("square(3) * x", 9 * X),
        ("clamp(7, max=2) * x", 2 * X),
        ("mul(x, 0) + x", atoms.let("mul", zero * X) + X),
        (
            "l1_loss(x, x, reduction=none)",
            atoms.let("l1_loss", atoms.absolute(X - atoms.together(X))),
        ),
    ],
)
def test_reads_calls(text: str, expected: Any) -> None:
    assert read(text) == expected


@pytest.mark.parametrize("written", ["'tanh'", '"tanh"', "tanh"])
def test_a_choice_is_written_with_or_without_quotes(written: str) -> None:
    expected = call(registry()["gelu"], X, {}, {"approximate": "tanh"})
    assert read(f"gelu(x, approximate={written})").value == expected


@pytest.mark.parametrize("written", ["True", "true"])
def test_a_flag_is_written_as_in_yaml_or_python(written: str) -> None:
    text = f"kl_div(x, a, reduction=none, log_target={written})"
    assert read(text).value == sp.exp(A) * (A - X)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        # ops that are steps of their own
        ("linear(x)", "cannot call linear, which torch computes; write a step of its own", 1),
        ("x + dropout(x)", "draws random numbers in training only; write a step of its own", 5),
        ("batch_norm(x)", "tensors in a submodule of Module; write a step of its own", 1),
        ("group_norm(x)", "tensors in a submodule of Module; write a step of its own", 1),
        ("instance_norm(x)", "tensors in a submodule of Module; write a step of its own", 1),
        ("cross_entropy(x, a)", "takes an int64 number for each row, its 'target'; write", 1),
        ("causal_mask(x, a)", "takes an int64 number for each row, its 'position'; write", 1),
        ("glu(x)", "needs its operand 'gate'; write glu(x, gate); of two halves", 1),
        ("prelu(x)", "write prelu(x, weight); with a parameter of Module it is a step", 1),
        ("mse_loss(x, a)", "one number for the whole tensor: give reduction='none', or", 1),
        # arguments
        ("gelu()", "gelu takes its x first; write gelu(x)", 1),
        ("gelu(approximate='tanh')", "gelu takes its x first", 1),
        (
            "gelu(x, 'tanh')",
            "takes x, not 2 values; attributes are given by name: approximate='tanh'",
            9,
        ),
        (
            "clamp(x, -1, a)",
            "takes x, not 3 values; attributes are given by name: min=-1, max=a",
            10,
        ),
        ("mul(x, a, b)", "mul takes x and other, not 3 values", 11),
        ("mul(x)", "mul needs its operand 'other'; write mul(x, other)", 1),
        ("mul(x, a, other=b)", "mul is given 'other' twice", 17),
        ("gelu(x, aproximate='tanh')", "did you mean 'approximate'?", 20),
        ("gelu(x, inplace=True)", "gelu takes no 'inplace': a kernel writes", 17),
        ("gelu(*x)", "a formula is made of", 6),
        ("gelu(x, **a)", "a formula is made of", 1),
        ("normcdf(x, mean=1)", "the arguments of normcdf have no names", 1),
        # dims
        ("softmax(x, dim=1)", "have one in common: - expr: {formula: ..., dim: ...}", 16),
        ("sum(x, keepdim=True)", "with size 1: leave keepdim out", 16),
        ("glu(x, a, dim=1)", "the halves of one tensor: leave it out", 15),
        # attributes
        ("rms_norm(x)", "rms_norm needs 'eps'; write rms_norm(x, eps=...)", 1),
        ("clamp(x)", "clamp needs min or max", 1),
        ("clamp(x, min=a)", "'min' of clamp must be a number or a float argument, not 'a'", 14),
        ("clamp(x, min='low')", "'min' of clamp must be a number or a float argument", 14),
        ("clamp(x, min=None)", "'min' of clamp must be a number or a float argument", 14),
        ("gelu(x, approximate='tnh')", "did you mean 'tanh'?", 21),
        ("gelu(x, approximate=tnh)", "did you mean 'tanh'?", 21),
        ("var(x, correction=1/2)", "must be a whole number, not 0.5", 19),
        ("softshrink(x, lambd=-1)", "must be a number of 0 or more, not -1", 21),
        ("huber_loss(x, a, delta=0, reduction=none)", "must be a number above 0, not 0", 24),
        ("kl_div(x, a, log_target=1)", "must be true or false, not 1", 25),
        (
            "binary_cross_entropy_with_logits(x, a, weight=b, reduction=none)",
            "'weight' of binary_cross_entropy_with_logits gets no gradient",
            47,
        ),
        # values
        ("div(x, 0)", "not finite", 1),
        ("reciprocal(0) * x", "not finite", 1),
        ("pow(x, 65)", "exponent is too large", 1),
        ("pow(9, 9**60) * x", "too large", 1),
        ("softmax(1) * x", "softmax(1) reduces a constant", 1),
        ("gelu * x", "gelu is a function: write gelu(...)", 1),
        ("geluu(x)", "unknown function 'geluu'; did you mean 'gelu'?", 1),
        ("viewed(x)", "unknown function 'viewed': a formula calls", 1),
    ],
)
def test_refuses_calls(text: str, message: str, column: int) -> None:
    with pytest.raises(FormulaError) as caught:
        read(text)
    assert message in caught.value.message
    assert caught.value.column == column


@pytest.mark.parametrize("op", ["gelu", "std", "layer_norm", "softmin"])
def test_calls_within_calls_end_at_once(op: str) -> None:
    start = time.perf_counter()
    with pytest.raises(FormulaError, match="more than 20,000 parts: make steps of it"):
        read(f"{op}(" * 40 + "x" + ")" * 40)
    assert time.perf_counter() - start < 20


def chain(*steps: str, before: str = "") -> Any:
    return parse_spec(before + "chain:\n" + "".join(f"  - {step}\n" for step in steps), "calls")


def test_a_float_argument_is_an_attribute_and_counts_as_named() -> None:
    before = "arguments: {low: float, eps: float}\noperands: {tanh: full}\n"
    formula = "clamp(x, min=low) * tanh + rms_norm(x, eps=eps)"
    (step,) = chain(f'expr: "{formula}"', before=before).steps
    assert list(step.operands) == ["low", "tanh", "eps"]
    assert [ref.is_argument for ref in step.operands.values()] == [True, False, True]
    with pytest.raises(SpecError, match="write low without quotes"):
        chain("expr: clamp(x, min='low')", before="arguments: {low: float}\n")
    with pytest.raises(SpecError, match="only a float attribute can be an argument"):
        chain("expr: var(x, correction=low)", before="arguments: {low: float}\n")


def test_an_expression_of_float_arguments_is_an_attribute() -> None:
    before = "arguments: {low: float}\noperands: {w: full}\n"
    (step,) = chain("expr: clamp(x * w, min=-2 * low)", before=before).steps
    known = {X: -5, sp.Symbol("low", real=True): 1, sp.Symbol("w", real=True): 1}
    assert evaluate(step.formula, known) == -2
    with pytest.raises(SpecError, match="'min' of clamp must be a number or a float argument"):
        chain("expr: clamp(x, min=-w)", before="operands: {w: full}\n")


def test_a_choice_is_no_mention_of_an_operand_with_its_name() -> None:
    before = "operands: {tanh: full}\n"
    (step,) = chain("expr: gelu(x, approximate=tanh) * tanh", before=before).steps
    assert list(step.operands) == ["tanh"]
    with pytest.raises(SpecError, match="no step of the chain uses it"):
        chain("expr: gelu(x, approximate=tanh)", before=before)


def test_a_call_works_beside_an_operand_with_the_ops_name() -> None:
    (step,) = chain("expr: gelu(x) * gelu", before="operands: {gelu: full}\n").steps
    gelu = sp.Symbol("gelu", real=True)
    assert step.formula == gelu * atoms.let("gelu", X * atoms.normcdf(X))


def test_double_quotes_stay_out_of_docstrings() -> None:
    (step,) = chain("""expr: 'gelu(x, approximate="tanh")'""").steps
    assert step.text == "gelu(x, approximate='tanh')"


@pytest.mark.parametrize(
    ("steps", "formula"),
    [
        (["gelu: {approximate: tanh}", "mul: gate"], "gelu(x, approximate='tanh') * gate"),
        (["add: gate", "layer_norm: {weight: w}", "silu"], "silu(layer_norm(add(x, gate), w))"),
        (["lerp: {end: gate, weight: 0.3}", "softmin"], "softmin(lerp(x, gate, weight=0.3))"),
        (
            ["hardtanh: {min_val: -0.5}", "normalize: {dim: -1, p: 3}", "div: gate"],
            "normalize(hardtanh(x, min_val=-0.5), p=3) / gate",
        ),
    ],
)
def test_a_call_gives_the_bits_of_the_step(steps: list[str], formula: str) -> None:
    before = "operands: {gate: full, w: col}\n"
    if "w)" not in formula:
        before = "operands: {gate: full}\n"
    results = []
    for text in (chain(*steps, before=before), chain(f'expr: "{formula}"', before=before)):
        derived = derive(text)
        case = make_case(derived, (5, 9), training=False)
        x = case.x.clone().requires_grad_()
        value = run_programs(derived, x, case.operands, {})
        assert isinstance(value, torch.Tensor)
        results.append((value, *torch.autograd.grad(value.square().sum(), x)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_formula_may_go_on_from_earlier_steps() -> None:
    both = chain("gelu: {name: a}", "tanh: {name: b}", "expr: softmax(a) * b")
    assert [step.takes_x for step in both.steps] == [True, True, False]
    before = "outputs: [b, expr]\n"
    again = chain("gelu: {name: a}", "tanh: {name: b}", "expr: a", before=before)
    assert again.steps[-1].formula == sp.Symbol("a", real=True)
    assert not chain("expr: gelu(input)").steps[0].takes_x


@pytest.mark.parametrize(
    ("steps", "before", "message", "line"),
    [
        (["gelu: {name: a}", "tanh", "expr: a"], "", "nothing uses the value of tanh", 3),
        (["gelu: {name: a}", "tanh: {name: b}", "expr: a"], "", "the value of b: expr", 3),
        (["gelu: {name: a}", "tanh", "exp", "expr: a"], "", "the value of exp: expr", 4),
        (["expr: 1 + w"], "operands: {w: full}\n", "nor on the value of a step", 3),
        (["gelu: {name: a}", "expr: a + x**0"], "", "does not depend on x: leave it out", 3),
        (["gelu: {name: a}", "expr: x + a**0"], "", "does not depend on a: leave it out", 3),
    ],
)
def test_refuses_values_that_nothing_uses(
    steps: list[str], before: str, message: str, line: int
) -> None:
    with pytest.raises(SpecError) as caught:
        chain(*steps, before=before)
    assert message in caught.value.message
    assert caught.value.line == line


def test_names_of_one_value_give_what_it_gives() -> None:
    """Between them and x sympy would make an Abs, a 1 without a shape, or a division by 0."""
    for same, wanted in (("sqrt(x * a)", "sqrt(a*(a))"), ("rsqrt(x - a)", "1/sqrt(-a + (a))")):
        assert wanted in derive(chain("gelu: {name: a}", f"expr: {same}")).describe()
    shaped = derive(chain("gelu: {name: a}", "expr: x / a * mean(x)"))
    assert shaped.output_shapes((3, 5)) == {"expr": (3, 5)}


def test_a_formula_without_x_has_the_shape_of_what_it_names() -> None:
    before = "dims: 3\noutputs: [g, y]\n"
    rows = [
        "mean: {dim: 1, keepdim: true, name: m}",
        "expr: {formula: tanh(input) * m, name: g}",
        "expr: {formula: exp(m), name: y}",
    ]
    derived = derive(chain(*rows, before=before))
    assert derived.output_shapes((2, 3, 4)) == {"g": (2, 3, 4), "y": (2, 1, 4)}
    one_row = ["mean: {dim: [0, 1], keepdim: true, name: m}", "add: input", "softmax: {name: g}"]
    with pytest.raises(SpecError, match="y: what it names has fewer rows than x"):
        derive(chain(*one_row, "expr: {formula: exp(m), name: y}", before=before))
