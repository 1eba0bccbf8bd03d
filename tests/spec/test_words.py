"""Words of torch in a chain: what the message tells their author to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusegen.base.errors import SpecError
from fusegen.ops import registry
from fusegen.spec import load
from fusegen.spec.words import FORMULAS, meant_op, unknown_function, unknown_op


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as error:
        load(path)
    return str(error.value)


@pytest.mark.parametrize(
    ("word", "op"),
    [
        ("nn.GELU", "gelu"),
        ("F.silu", "silu"),
        ("BatchNorm2d", "batch_norm"),
        ("CrossEntropyLoss", "cross_entropy"),
        ("torch.argmax", "argmax"),
        ("relu_", "relu"),
        ("conv", "conv2d"),
        ("mse", "mse_loss"),
        ("drop", "dropout"),
        ("ln", "layer_norm"),
        ("gelu()", "gelu"),
    ],
)
def test_another_spelling_is_understood(word: str, op: str) -> None:
    assert unknown_op(word) == f"unknown op {word!r}; did you mean {op!r}?"


@pytest.mark.parametrize("word", ["erfinv", "floor_divide", "median", "RReLU", "lgamma"])
def test_no_other_function_is_offered_in_place_of_one_that_there_is_not(word: str) -> None:
    assert "did you mean" not in unknown_op(word)


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("x * sigmoid(x)", '- expr: "x * sigmoid(x)"'),
        ("gelu(x)", '- expr: "gelu(x)"'),
        ('gelu(approximate="tanh")', "- gelu: {approximate: ...}"),
        ("nn.Softmax(1)", "- softmax: {dim: ...}"),
        ("gelu_new", "- gelu: {approximate: tanh}"),
        ("logit", '- expr: "log(x) - log1p(-x)"'),
        ("floor_divide", "divide, then floor"),
        ("act", "name the function itself"),
    ],
)
def test_the_message_says_what_to_write(word: str, advice: str) -> None:
    assert advice in unknown_op(word)


@pytest.mark.parametrize("word", sorted(FORMULAS))
def test_the_formula_of_a_function_is_one(word: str, tmp_path: Path) -> None:
    path = tmp_path / "formula.yaml"
    path.write_text(f'chain:\n  - expr: "{FORMULAS[word]}"\n')
    load(path)


def test_no_op_is_called_unknown() -> None:
    """An op that was added later is understood in torch's spelling too."""
    for name in registry():
        assert meant_op(name.replace("_", "").upper()) is not None
        assert "is no op" not in unknown_op(f"nn.{name}")


def test_a_formula_says_the_same_of_functions() -> None:
    assert unknown_function("logit", []).endswith("of x it is log(x) - log1p(-x)")
    assert "declare it as an atom" in unknown_function("erfinv", [])
    assert unknown_function("SiLU", []).endswith("did you mean 'silu'?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chain:\n  - expr: x * torch.sigmoid(x)\n", "write sigmoid(...)"),
        ("chain:\n  - expr: x * x.sigmoid()\n", "write sigmoid(x)"),
        ("chain:\n  - expr: x + w\n", "unknown name 'w'; declare it under `operands:`"),
        ("chain:\n  - scale: {init: ones}\n", "a tensor is declared under `operands:`"),
        ("chain:\n  - gelu\n    softmax\n", "each step has a line of its own"),
        ("inputs: {b: col}\nchain:\n  - add: b\n", "did you mean 'operands'?"),
        ("steps:\n  - gelu\n", "did you mean 'chain'?"),
        ("name: a\nchain:\n  - gelu\n", "a package is named after its file"),
        ("dtypes: [fp32]\nchain:\n  - gelu\n", "dtypes cannot be 'fp32'; did you mean 'float32'?"),
        ("dtypes: float32\nchain:\n  - gelu\n", "dtypes must be a list: [float32, bfloat16]"),
    ],
)
def test_sections_and_formulas_are_put_right(text: str, message: str, tmp_path: Path) -> None:
    assert message in refused(tmp_path, text)
