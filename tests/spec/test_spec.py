"""The spec language: what a spec says, and what follows where it is silent."""

from __future__ import annotations

from pathlib import Path

import pytest
import sympy as sp
from conftest import ROOT, SPECS
from shared.vocabulary import lone_ops, specs_of

from fusegen.ops import registry
from fusegen.program import Kind
from fusegen.spec import Operand, Ref, Spec, load, parse
from fusegen.spec.formula.functions import functions

LINEAR = "arguments: {in_features: int, out_features: int, p: float}\n"


def chain(*steps: str, before: str = "") -> Spec:
    return parse(before + "chain:\n" + "".join(f"  - {step}\n" for step in steps), "example")


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_loads_and_explains_itself(path: Path) -> None:
    spec = load(path)
    assert spec.name == path.stem
    assert spec.text.splitlines()[1].startswith("# ")  # after the line for editors
    assert spec.description
    assert spec.steps


def test_there_are_ten_specs_and_five_start_from_a_matmul() -> None:
    sources = [s.op is not None and s.op.source for s in (load(p).steps[0] for p in SPECS)]
    assert (len(SPECS), sum(sources)) == (10, 5)


def test_the_five_op_chain() -> None:
    spec = load(next(p for p in SPECS if p.stem == "matmul_add_swish_tanh_gelu_hardtanh"))
    assert [(a.name, a.type, a.default) for a in spec.arguments] == [
        ("in_features", "int", None),
        ("out_features", "int", None),
        ("add_value_shape", "shape", ("out_features",)),
    ]
    assert spec.operands == (Operand("add_value", Kind.COL, "randn", "add_value_shape", 17),)
    assert [s.label for s in spec.steps] == ["matmul", "add", "swish", "tanh", "gelu", "hardtanh"]
    matmul, add, *_, gelu, hardtanh = spec.steps
    assert matmul.settings == {
        "in_features": Ref("in_features", is_argument=True),
        "out_features": Ref("out_features", is_argument=True),
        "bias": True,
    }
    assert matmul.operands == {}
    assert add.operands == {"other": Ref("add_value", is_argument=False)}
    assert (add.text, add.line) == ("add(add_value)", 20)
    assert gelu.attributes == {"approximate": "none"}
    assert hardtanh.attributes == {"min_val": -1.0, "max_val": 1.0}
    assert hardtanh.text == "hardtanh(min_val=-1, max_val=1)"


def test_batch_norm_takes_its_width_from_the_source_and_its_attributes_from_arguments() -> None:
    spec = load(next(p for p in SPECS if p.stem == "gemm_batchnorm_scale_softmax"))
    bn = spec.steps[1]
    assert bn.label == "bn"
    assert bn.settings == {"features": Ref("out_features", is_argument=True)}
    assert bn.attributes["eps"] == Ref("bn_eps", is_argument=True)
    assert bn.operands == {}
    assert {a.name: a.default for a in spec.arguments}["bn_eps"] == 1e-5


def test_defaults_of_steps() -> None:
    spec = chain("linear: {bias: false}", "dropout", "softmax: 1", before=LINEAR)
    linear, dropout, softmax = spec.steps
    assert linear.settings["bias"] is False
    assert (dropout.label, dropout.attributes) == ("dropout", {"p": 0.5})
    assert (softmax.attributes, softmax.text) == ({"dim": 1}, "softmax(dim=1)")
    assert spec.order == 2


def test_an_operand_slot_takes_an_operand_an_argument_or_a_number() -> None:
    before = "arguments: {factor: float}\noperands: {other: full}\n"
    spec = chain("add: other", "scale: factor", "mul: 2", "sub: {other: 1e-5}", before=before)
    assert [step.operands["other"] for step in spec.steps] == [
        Ref("other", is_argument=False),
        Ref("factor", is_argument=True),
        2.0,
        1e-5,
    ]


def test_a_step_names_the_value_of_an_earlier_one() -> None:
    """What a Module keeps has a name of itself; `input` is an operand only after a product."""
    gelu = "gelu: {name: bent}"
    spec = chain("linear", gelu, "add: linear", "expr: x * bent + input", before=LINEAR)
    assert [step.mentions for step in spec.steps] == [(), (), ("linear",), ("bent",)]
    assert spec.steps[2].operands["other"] == Ref("linear", is_argument=False, is_step=True)
    assert spec.steps[3].tensors == ("input",)
    assert [o.name for o in spec.operands] == ["input"]
    alone = chain("gelu", "add: input")
    assert alone.steps[1].mentions == ("input",)
    assert alone.operands == ()


def test_labels_are_unique() -> None:
    spec = chain("gelu", "gelu", "mul: mul", "expr: x + 1", before="operands: {mul: scalar}\n")
    assert [s.label for s in spec.steps] == ["gelu", "gelu_2", "mul_2", "expr"]


def test_an_alias_is_the_op_itself() -> None:
    (step,) = chain("silu").steps
    assert step.op is registry()["swish"]
    assert (step.label, step.text) == ("swish", "silu")


def test_default_shapes_of_parameters() -> None:
    before = LINEAR + "operands: {b: {kind: col, init: zeros}, s: {kind: scalar, init: ones}}\n"
    spec = chain("add: b", "mul: s", before=before)
    assert [o.shape for o in spec.operands] == [("out_features",), (1,)]


def test_a_formula_is_read_over_real_symbols_and_names_its_operands_in_order() -> None:
    before = "arguments: {eps: float}\noperands: {a: row, b: col}\n"
    (step,) = chain("expr: 'b * x  + a*eps'", before=before).steps
    a, b, eps, x = (sp.Symbol(name, real=True) for name in ("a", "b", "eps", "x"))
    assert step.op is None
    assert step.formula == b * x + a * eps
    assert step.text == "b * x + a*eps"
    assert list(step.operands) == ["b", "a", "eps"]
    assert step.operands["eps"] == Ref("eps", is_argument=True)


def test_words_of_yaml_1_1_stay_words() -> None:
    (step,) = chain("add: no", before="operands: {no: full}\n").steps
    assert step.operands == {"other": Ref("no", is_argument=False)}


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_bytes(b"\xef\xbb\xbfchain:\r\n  - swish\r\n")
    assert load(path).steps[0].line == 2


def test_the_docs_example_parses_and_lists_every_function() -> None:
    text = (ROOT / "docs" / "specs.md").read_text(encoding="utf-8")
    smallest, whole = (block.split("```")[0] for block in text.split("```yaml\n")[1:3])
    assert [s.label for s in parse(smallest, "example").steps] == ["gelu"]
    assert [s.label for s in parse(whole, "example").steps][:2] == ["gemm", "bn"]
    listed = text.split("## Formulas")[1]
    assert [name for name in functions() if name not in listed] == []


def test_every_op_can_be_written() -> None:
    """Each op of the registry is accepted with its operands as tensors, in each variant that is tested."""
    for name, op in registry().items():
        for text in specs_of(name).values() if name in lone_ops() else []:
            (step,) = parse(text, "example").steps
            assert step.op is op
            assert set(step.attributes) == set(op.attributes)
    for name in set(registry()) - set(lone_ops()):
        op = registry()[name]
        sized = dict.fromkeys(op.submodule.sized_by, 8) if op.submodule else {}
        given = sized or ({} if op.source else dict.fromkeys(op.operands, 2))
        assert chain(f"{name}: {given}").steps[0].op is op
