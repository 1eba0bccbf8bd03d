"""The text of a chain that runs step by step in torch, against torch's own functions, for every op."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from shared.vocabulary import CHAINS, VARIANTS, spec_text, where_defined
from torch import Tensor

from fusegen import ops
from fusegen.chain.cut_into_segments import spans_of
from fusegen.chain.operands import SegmentOperand, operands_of
from fusegen.render.stepwise import stepwise_lines
from fusegen.runtime import steps
from fusegen.spec import parse
from fusegen.spec.model import INPUT, Spec
from fusegen.tools.check.reference import run_chain

FILES = sorted(
    path
    for folder in ("specs", "tests/chains", "tests/segments")
    for path in (ROOT / folder).glob("*.yaml")
)
#: A spec for each op that torch or its own formula computes, with every variant of its attributes.
OPS = {
    f"{name}_{number}": spec_text(op, given)
    for name, op in ops.registry().items()
    if not (op.source or op.submodule or op.trained or op.over == "inner" or op.groups)
    for number, given in enumerate(VARIANTS.get(name, [""]))
}
#: Five rows, four channels.
SHAPE = [5, 4, 6, 8, 2]


def compiled(spec: Spec, operands: dict[str, SegmentOperand]) -> Callable[..., Tensor]:
    """Return the text as a function of x, the operands and the submodules."""
    numbers = {a.name: f"numbers[{a.name!r}]" for a in spec.arguments}
    lines = stepwise_lines(spec, {name: name for name in operands}, numbers)
    inputs = spec.steps[0].op.inputs if spec.steps[0].op else ()
    head = f"def run(self, numbers, x, {', '.join([*operands, *inputs])}):"
    text = "\n    ".join([head, *lines, "return x"])
    helpers = {name: getattr(steps, name) for name in steps.__all__}
    scope: dict[str, Any] = {"torch": torch, **helpers}
    exec(text, scope)  # noqa: S102 # it is what a package would hold
    run: Callable[..., Tensor] = scope["run"]
    return run


def agree(spec: Spec) -> None:
    """Compare the text's value with that of torch's own functions, in evaluation, in float64."""
    generator = torch.Generator().manual_seed(0)
    spans = spans_of(spec)
    layout = spans[0].layout
    shape = SHAPE[: layout.rank or 2]
    if spec.halved:
        shape[spec.halved] *= 2
    x = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.25
    if len(spec.steps) == 1 and spec.steps[0].op:
        x = where_defined(spec.steps[0].op.name, x)
    operands: dict[str, SegmentOperand] = {}
    given: dict[str, Tensor] = {}
    for number, span in enumerate(spans):
        for operand in operands_of(spec, span):
            if operand.handed or operand.name in given:
                continue
            size: tuple[int, ...] = (
                1,
            )  # later, where dims are gone, this broadcasts with everything
            if number == 0 or operand.kind.label == "channel":
                size = operand.shape(SHAPE[: span.layout.rank] if number else shape, span.layout)
            made = torch.rand(size, generator=generator, dtype=torch.float64) + 0.5
            given[operand.name] = made.long() if operand.integer else made
            operands[operand.name] = operand
    if INPUT in given:  # the text takes it from x
        given[INPUT] = x
    numbers = {a.name: a.default or 2 for a in spec.arguments}
    modules = {}
    for step in spec.steps:
        if step.op and step.op.submodule:
            modules[step.label] = submodule(spec, step.label, given, numbers)
    wanted = run_chain(spec, x, given, numbers)
    if spec.steps[0].op and spec.steps[0].op.inputs:  # bmm: x is the product already
        (second,) = spec.steps[0].op.inputs
        given[second] = torch.eye(shape[-1], dtype=torch.float64).expand(shape[0], -1, -1)
    got = compiled(spec, operands)(SimpleNamespace(**modules), numbers, x, **given)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-13)


def submodule(
    spec: Spec, label: str, given: dict[str, Tensor], numbers: dict[str, object]
) -> Callable[[Tensor], Tensor]:
    """Return what computes a step of a spec alone, as its submodule would."""
    step = next(s for s in spec.steps if s.label == label)
    alone = replace(spec, steps=(step,))
    return lambda x: run_chain(alone, x, given, numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPS)
def test_every_op(name: str) -> None:
    agree(parse(OPS[name], name))


@pytest.mark.parametrize("name", CHAINS)
def test_chains_that_go_on_after_a_reduction(name: str) -> None:
    agree(parse(textwrap.dedent(CHAINS[name]), name))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_spec(path: Path) -> None:
    agree(parse(path.read_text(), path.stem))


def test_values_of_float32() -> None:
    """A step whose value is returned in float32 is computed so; later steps have x's dtype."""
    text = (
        "outputs: [{name: lse, dtype: float32}, last]\nchain:\n  - logsumexp: {name: lse, dim: 1}\n"
    )
    x = torch.randn(3, 5).bfloat16()
    for ending, wide in (("  - tanh: {name: last}\n", False), ("", True)):
        outputs = (
            text if ending else text.replace("lse, dtype: float32}, last", "lse, dtype: float32}")
        )
        spec = parse(outputs + ending, "mixed")
        got = compiled(spec, {})(None, {}, x)
        assert got.dtype is (torch.float32 if wide else torch.bfloat16)
        lse = x.float().logsumexp(1)
        assert torch.equal(got, lse if wide else lse.bfloat16().tanh())


def test_operands_of_float32() -> None:
    """A step with one is computed in float32, and its value has x's dtype."""
    text = "operands:\n  weight: {kind: col, dtype: float32}\n  bias: col\nchain:\n"
    spec = parse(f"{text}  - layer_norm: {{weight: weight, bias: bias}}\n  - add: bias\n", "mixed")
    operands = {o.name: o for o in operands_of(spec, spans_of(spec)[0])}
    x, bias, weight = torch.randn(3, 5).bfloat16(), torch.randn(5).bfloat16(), torch.randn(5)
    normed = torch.layer_norm(x.float(), [5], weight, bias.float()).bfloat16()
    got = compiled(spec, operands)(None, {}, x, bias=bias, weight=weight)
    assert got.dtype is torch.bfloat16
    assert torch.equal(got, normed + bias)


def test_the_input_after_a_source() -> None:
    """A step may add what the Module is called with."""
    text = "chain: [{conv2d: {name: conv, in_channels: 3, out_channels: 3, kernel_size: 1}}, {add: input}]"
    lines = stepwise_lines(parse(text, "residual"), {"input": "input"}, {})
    assert lines[:2] == ["input = x", "x = self.conv(x)"]


def test_an_op_of_a_constant_that_a_formula_calls() -> None:
    """What it compares is a function of a number, which sympy does not evaluate."""
    agree(parse("chain: [{expr: 'lerp(x**2, 4 / (1 + x**2), 0.25)'}, tanh]", "constants"))


def test_losses_of_numbers_and_of_small_tensors() -> None:
    """torch's functions of losses take tensors alone, and a binary cross-entropy those of x's shape."""
    entropy = "binary_cross_entropy_with_logits"
    text = f"""
operands: {{r: row, s: scalar, c: col}}
chain:
  - {entropy}: {{target: 0.25, weight: 2.0, reduction: none}}
  - {entropy}: {{target: r, pos_weight: c, reduction: none}}
  - {entropy}: {{target: s, reduction: none}}
  - huber_loss: {{target: 3.0, reduction: none}}
  - kl_div: {{target: 0.5, reduction: none}}
  - mse_loss: {{target: 2.0}}
"""
    agree(parse(text, "losses"))


def test_a_causal_mask_of_rows_without_columns() -> None:
    """A step dropped the columns: the mask is that of column 0."""
    text = "operands: {p: {kind: row, dtype: int64}}\nchain:\n  - var: {dim: -1, keepdim: false}\n"
    agree(parse(f"{text}  - causal_mask: {{position: p}}\n  - elu\n", "mask"))


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_norms_with_a_number_as_weight(norm: str) -> None:
    agree(parse(f"dims: 3\nchain:\n  - {norm}: {{weight: 4.0, eps: 1e-5}}\n  - tanh\n", "norm"))


def test_a_value_beside_the_mean_of_all_elements() -> None:
    agree(parse("chain:\n  - square: {name: a}\n  - mse_loss: 1.5\n  - sub: a\n", "mean"))
