"""Every mistake in a spec is one message with its file and line, and nothing else is ever raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusegen.base.errors import SpecError
from fusegen.chain import derive
from fusegen.spec import load, parse
from fusegen.spec import names as spec_names

LINEAR = "arguments: {in_features: int, out_features: int, p: float}\n"
COL = "operands:\n  w: {kind: col}\n"
#: The text, a part of the message, the line.
MISTAKES: list[tuple[str, str, int]] = [
    # the file as a whole
    ("", "the file is empty", 1),
    ("# nothing\n", "the file is empty", 1),
    ("---\n", "the file is empty", 2),
    ("- swish\n", "a spec is a mapping", 1),
    ("chain: [swish]\n---\nchain: [swish]\n", "a second document", 2),
    ("chain:\n\t- swish\n", "a tab", 2),
    ("chain:\n  - softmax: {dim: 1\n", "not YAML", 2),
    ("chain:\n  - a: b: c\n", "a ':' too many", 2),
    ("chain: [swish]\norder: @\n", "not YAML", 2),
    ("chain: [swish]\n\norder: \x07\n", "not allowed", 3),
    ("chain: [swish]\nchain: [tanh]\n", "'chain' is given twice", 2),
    ("chain:\n  - &a swish\n  - *a\n", "anchors", 2),
    ("chain:\n  - !!python/name:os.system swish\n", "tags", 2),
    ("chain: " + "[" * 40 + "]" * 40, "nested too deeply", 1),
    ("chain: [swish]\n? [a]\n: 1\n", "a key must be a word", 2),
    ("order: .inf\nchain: [swish]\n", "finite", 1),
    # sections
    ("chian: [swish]\n", "unknown key 'chian'; did you mean 'chain'?", 1),
    ("order: 1\n", "the chain is missing", 1),
    ("order: 1\nchain: []\n", "the chain is empty", 2),
    ("order: 1\nchain:\n", "the chain is empty", 2),
    ("chain: swish\n", "chain must be a list", 1),
    ("chain: [swish]\norder: 4\n", "order must be 1, 2 or 3", 2),
    ("chain: [swish]\norder: two\n", "order must be a whole number", 2),
    ("chain: [swish]\norder: true\n", "order must be a whole number", 2),
    ("description: 3\nchain: [swish]\n", "description must be text", 1),
    ('description: "a\\nb"\nchain: [swish]\n', "one line", 1),
    ("description: 'end */ of'\nchain: [swish]\n", "one line", 1),
    ("arguments: [a]\nchain: [swish]\n", "arguments must be a mapping", 1),
    # arguments
    ("arguments:\n  a: {type: flaot}\nchain: [swish]\n", "did you mean 'float'?", 2),
    ("arguments:\n  a: real\nchain: [swish]\n", "valid here: float, int, shape", 2),
    ("arguments:\n  a: {typ: int}\nchain: [swish]\n", "did you mean 'type'?", 2),
    ("arguments:\n  a: {default: 1}\nchain: [swish]\n", "the type of 'a' is missing", 2),
    ("arguments:\n  a: {type: int, default: 1.5}\nchain: [swish]\n", "a whole number, not 1.5", 2),
    ("arguments:\n  a: {type: float, default: one}\nchain: [swish]\n", "must be a number", 2),
    ("arguments:\n  a: {type: shape, default: 3}\nchain: [swish]\n", "a list of sizes", 2),
    ("arguments:\n  a: {type: shape, default: [0]}\nchain: [swish]\n", "1 or more", 2),
    (
        "arguments:\n  size: int\n  a: {type: shape, default: [sise]}\nchain: [swish]\n",
        "did you mean 'size'?",
        3,
    ),
    (
        "arguments:\n  a: {type: float, default: 1}\n  b: float\nchain: [swish]\n",
        "'b' has no default but follows one",
        3,
    ),
    # ranges
    ("chain:\n  - dropout: 1.5\n", "'p' of dropout must be a number from 0 to 1, not 1.5", 2),
    (
        "chain:\n  - softshrink: -1\n",
        "'lambd' of softshrink must be a number of 0 or more, not -1",
        2,
    ),
    (
        "operands: {t: full}\nchain:\n  - huber_loss: {target: t, delta: 0}\n",
        "'delta' of huber_loss must be a number above 0, not 0",
        3,
    ),
    # sizes
    ("chain:\n  - prelu: {num_parameters: 0}\n", "'num_parameters' of prelu must be an int", 2),
    ("chain:\n  - prelu: {num_parameters: [2]}\n", "'num_parameters' of prelu must be an int", 2),
    ("chain:\n  - prelu: {weight: 3}\n", "'weight' of prelu lives in its torch.nn.PReLU", 2),
    # names
    ("arguments:\n  2nd: int\nchain: [swish]\n", "'2nd' is no name", 2),
    ("arguments:\n  a-b: int\nchain: [swish]\n", "'a-b' is no name", 2),
    ("arguments:\n  lambda: int\nchain: [swish]\n", "keyword of Python", 2),
    ("arguments:\n  lambda: int\nchain: [swish]\n", "choose another, such as lambda_", 2),
    ("arguments:\n  _a: float\nchain: [swish]\n", "torch's own; choose another, such as a_", 2),
    ("arguments:\n  __a: int\nchain: [swish]\n", "is changed by Python, as it starts with __", 2),
    ("arguments:\n  x: int\nchain: [swish]\n", "it is the activation", 2),
    ("arguments:\n  self: int\nchain: [swish]\n", "it is what Module's methods call the", 2),
    ("operands:\n  seed: col\nchain: [{add: seed}]\n", "a keyword argument of apply", 2),
    ("arguments:\n  forward: float\nchain: [swish]\n", "an attribute of every torch.nn.Module", 2),
    (
        "operands:\n  half: {kind: col, init: ones, shape: [8]}\nchain: [{add: half}]\n",
        "attribute of every torch.nn.Module; choose another, such as half_",
        2,
    ),
    ("chain:\n  - dropout: {name: train}\n", "torch.nn.Module; choose another", 2),
    ("operands:\n  \ufb01: col\nchain: [{add: \ufb01}]\n", "is 'fi' to Python: write it so", 2),
    (
        LINEAR + "operands: {linear_bias: col}\nchain:\n  - linear\n  - add: linear_bias\n",
        "'linear_bias' cannot be a name here: apply calls the bias of linear so; choose another",
        2,
    ),
    (LINEAR + "chain:\n  - linear\n  - gelu: {name: linear_bias}\n", "apply calls the bias", 4),
    ("operands: {mat2: col}\nchain:\n  - bmm\n  - add: mat2\n", "what bmm takes so", 1),
    (f"arguments:\n  {'a' * 65}: int\nchain: [swish]\n", "longer than 64", 2),
    ("arguments: {w: int}\noperands:\n  w: full\nchain: [{add: w}]\n", "also an argument", 3),
    ("chain:\n  - swish: {name: 'a b'}\n", "'a b' is no name", 2),
    # operands
    ("operands:\n  w: {kind: column}\nchain: [{add: w}]\n", "kind of 'w' cannot be 'column'", 2),
    ("operands:\n  w: {init: ones}\nchain: [{add: w}]\n", "the kind of 'w' is missing", 2),
    ("operands:\n  w: {kind: col, init: one}\nchain: [{add: w}]\n", "did you mean 'ones'?", 2),
    ("operands:\n  w: {kind: full, init: ones}\nchain: [{add: w}]\n", "cannot be a parameter", 2),
    ("operands:\n  w: {kind: row, init: ones}\nchain: [{add: w}]\n", "cannot be a parameter", 2),
    ("operands:\n  w: {kind: col, init: ones}\nchain: [{add: w}]\n", "needs a shape", 2),
    ("operands:\n  w: {kind: col, shape: [3]}\nchain: [{add: w}]\n", "no init", 2),
    (
        "operands:\n  w: {kind: col, init: ones, shape: size}\nchain: [{add: w}]\n",
        "a list of sizes or a shape argument",
        2,
    ),
    (
        "operands:\n  w: {kind: col, init: ones, shape: [3, 4]}\nchain: [{add: w}]\n",
        "'w' cannot broadcast: [3, 4] is not of kind col",
        2,
    ),
    (
        "operands:\n  w: {kind: scalar, init: ones, shape: [3]}\nchain: [{add: w}]\n",
        "'w' cannot broadcast: [3] is not of kind scalar",
        2,
    ),
    (COL + "chain: [swish]\n", "'w' is declared but no step of the chain uses it", 2),
    (COL + "chain: [{expr: x + 0*w}]\n", "does not depend on w: leave it out", 3),
    # steps
    ("chain:\n  - swish\n  - tahn\n", "unknown op 'tahn'; did you mean 'tanh'?", 3),
    ("chain:\n  - zzz: {a: 1}\n", "unknown op 'zzz'", 2),
    ("chain:\n  - 3\n", "a step is the name of an op", 2),
    ("chain:\n  - [swish]\n", "a step is the name of an op", 2),
    ("chain:\n  - gelu:\n    name: g\n", "a step is one op", 2),
    ("chain:\n  - hardtanh: {min: -1}\n", "did you mean 'min_val'?", 2),
    ("chain:\n  - swish\n  - softmax:\n      dims: 1\n", "did you mean 'dim'?", 4),
    ("chain:\n  - hardtanh: 3\n", "min_val and max_val; give them by name", 2),
    ("chain:\n  - hardtanh: {min_val: low}\n", "must be a number or a float argument", 2),
    ("chain:\n  - hardtanh: {min_val: true}\n", "must be a number or a float argument", 2),
    ("arguments: {n: int}\nchain:\n  - elu: n\n", "must be a number or a float argument", 3),
    ("chain:\n  - gelu: {approximate: tan}\n", "did you mean 'tanh'?", 2),
    ("chain:\n  - gelu: {approximate: 1}\n", "must be a word, not 1", 2),
    ("chain:\n  - softmax: {dim: 1.0}\n", "must be a whole number", 2),
    ("arguments: {d: float}\nchain:\n  - softmax: {dim: d}\n", "only a float attribute", 3),
    ("chain:\n  - softmax: {dim: 2}\n", "dim 2 does not exist", 2),
    ("chain:\n  - softmax: {dim: -3}\n", "dim -3 does not exist", 2),
    ("chain:\n  - softmax: {dim: 0}\n", "reductions run over the last dim for now", 2),
    ("chain:\n  - log_softmax: -2\n", "reductions run over the last dim for now", 2),
    ("chain:\n  - mish: 3\n", "neither an operand nor an attribute", 2),
    ("chain:\n  - add\n", "add needs its operand 'other'; write - add: OTHER", 2),
    ("chain:\n  - add: {}\n", "add needs its operand 'other'", 2),
    ("chain:\n  - lerp: {end: 2}\n", "lerp needs its operand 'weight'", 2),
    (COL + "chain:\n  - add: [w, w]\n", "not a list", 4),
    (COL + "chain:\n  - add: {other: w, another: w}\n", "did you mean 'other'?", 4),
    (COL + "chain:\n  - lerp: w\n", "end and weight; give them by name", 4),
    (COL + "chain:\n  - add: ww\n", "unknown operand 'ww'; did you mean 'w'?", 4),
    # what is left empty, and null where None is no value
    ("chain:\n  - gelu: {approximate: }\n", "'approximate' of gelu is empty: give it a value", 2),
    ("chain:\n  - gelu: {approximate: null}\n", "'approximate' of gelu is null", 2),
    ("chain:\n  - gelu: {name: }\n", "'name' of gelu is empty", 2),
    ("chain:\n  - sum: {dim: }\n", "'dim' of sum is empty", 2),
    ("chain:\n  - clamp: {min: , max: 2}\n", "'min' of clamp is empty", 2),
    ("chain:\n  - add:\n", "there is no value after 'add'", 2),
    ("chain:\n  - expr:\n", "there is no value after 'expr'", 2),
    ("chain:\n  - expr: {formula: x + 1, dim: }\n", "'dim' of expr is empty", 2),
    ("chain:\n  - softmax: {dim: [1, ]}\n", "a whole number", 2),
    ("chain:\n  - softmax: {dim: [1, ~]}\n", "item 2 of the list is null", 2),
    ("chain:\n  - gelu\n  -\n", "item 2 of the list is empty", 3),
    (
        COL + "chain:\n  - mse_loss: {target: w, reduction: }\n",
        "'reduction' of mse_loss is empty",
        4,
    ),
    (
        "chain:\n  - linear: {in_features: , out_features: 3}\n",
        "'in_features' of linear is empty",
        2,
    ),
    ("chain:\n  - linear: {in_features: 3, out_features: 3, bias: }\n", "'bias' of linear is", 2),
    ("chain: [swish]\norder:\n", "the section 'order' is empty", 2),
    ("chain: [swish]\ndims:\n", "the section 'dims' is empty", 2),
    ("chain: [swish]\ndescription:\n", "the section 'description' is empty", 2),
    ("chain: [swish]\nlaunch:\n", "the section 'launch' is empty", 2),
    ("chain: [swish]\nlaunch: {forward: }\n", "'forward' of launch is empty", 2),
    ("chain: [swish]\nlaunch: {forward: {waves: }}\n", "'waves' of forward is empty", 2),
    ("operands:\nchain: [swish]\n", "the section 'operands' is empty", 1),
    ("operands:\n  w:\nchain: [{add: w}]\n", "'w' of operands is empty", 2),
    ("operands:\n  w: {kind: col, init: }\nchain: [{add: w}]\n", "'init' of w is empty", 2),
    ("operands:\n  w: {kind: row, dtype: }\nchain: [{add: w}]\n", "'dtype' of w is empty", 2),
    ("operands:\n  w: {kind: col, shape: ~}\nchain: [{add: w}]\n", "'shape' of w is null", 2),
    ("arguments:\nchain: [swish]\n", "the section 'arguments' is empty", 1),
    ("arguments: {a: {type: float, default: }}\nchain: [{add: a}]\n", "'default' of a is empty", 1),
    # words of torch
    (
        "chain:\n  - min: 0.5\n",
        "min reduces a dim, which 0.5 is not: of two tensors, write minimum",
        2,
    ),
    (COL + "chain:\n  - max: w\n", "of two tensors, write maximum", 4),
    ("chain:\n  - matmul: w\n", "a chain starts from one product", 2),
    ("chain:\n  - nn.AdaptiveAvgPool2d\n", "- mean: {dim: [2, 3], keepdim: true}", 2),
    ("chain:\n  - adaptive_max_pool1d: 1\n", "- amax: {dim: [2], keepdim: true}", 2),
    ("chain:\n  - nn.MaxPool2d\n", "looks at a window", 2),
    ("chain:\n  - ReLU\n", "unknown op 'ReLU'; did you mean 'relu'?", 2),
    ("chain:\n  - nn.GELU\n", "did you mean 'gelu'?", 2),
    ("chain:\n  - F.log_softmax: {dim: 1}\n", "did you mean 'log_softmax'?", 2),
    ("chain:\n  - BatchNorm2d\n", "did you mean 'batch_norm'?", 2),
    ("chain:\n  - nn.CrossEntropyLoss\n", "did you mean 'cross_entropy'?", 2),
    ("chain:\n  - view: [2, 3]\n", "it moves elements and computes nothing", 2),
    ("chain:\n  - chunk: 2\n", "it moves elements and computes nothing", 2),
    ("chain:\n  - zzz\n", "unknown op 'zzz': `fusegen ops` lists them", 2),
    ("chain:\n  - expr: x * relu(x)\n", "it is an op, so a step of its own: - relu", 2),
    # an argument that two steps would take
    (
        "arguments: {in_channels: int, out_channels: int, kernel_size: int, groups: int}\nchain:\n"
        "  - conv2d\n  - group_norm: {num_groups: groups}\n",
        "the argument 'groups' is named by another step, and conv2d takes it too",
        3,
    ),
    # values of earlier steps
    ("chain:\n  - gelu\n  - add: gelu\n", "give it a name: - gelu: {name: ...}", 3),
    ("chain:\n  - relu6\n  - expr: x * relu6\n", "give it a name: - relu6: {name: ...}", 3),
    (
        "chain:\n  - add: late\n  - gelu: {name: late}\n",
        "before it, and that one comes after it",
        2,
    ),
    ("chain:\n  - gelu: {name: bent}\n  - add: bend\n", "did you mean 'bent'?", 3),
    ("chain:\n  - gelu: {name: bent}\n  - expr: bent * 2\n", "does not depend on x", 3),
    (
        "chain:\n  - amin: {dim: -1, keepdim: true}\n  - expr: x + 0 * input\n",
        "'x + 0 * input' does not depend on input: leave it out",
        3,
    ),
    (
        "chain:\n  - amin: {dim: -1, keepdim: true}\n  - add: {alpha: 0, other: input}\n",
        "does not depend on input",
        3,
    ),
    ("chain:\n  - gelu: {name: input}\n", "it is what the chain starts from", 2),
    (
        "chain:\n  - gelu: {name: bent}\n  - where: {condition: bent, other: 0}\n",
        "'condition' of where gets no gradient, so it cannot be 'bent'",
        3,
    ),
    (
        "dims: 2\nchain:\n  - gelu: {name: bent}\n  - cross_entropy: {target: bent}\n",
        "'target' of cross_entropy gets no gradient, so it cannot be 'bent'",
        4,
    ),
    ("chain:\n  - glu\n  - add: input\n", "'input' is two halves, of which glu makes one", 3),
    (
        LINEAR + "chain:\n  - linear\n  - glu\n  - expr: x + linear\n",
        "'linear' is two halves, of which glu makes one: use the value of a step from there on",
        5,
    ),
    ("chain:\n  - add: w\n", "declare it under `operands:`", 2),
    ("chain:\n  - add: true\n", "must be an operand, a float argument or a number", 2),
    ("arguments: {n: int}\nchain:\n  - add: n\n", "only a float argument can be an operand", 3),
    (
        "operands: {w: full}\nchain:\n  - rms_norm: {weight: w, eps: 1}\n",
        "'w' cannot broadcast: it is full [rows, cols], but 'weight' of rms_norm is col [cols]",
        3,
    ),
    (
        LINEAR + "operands: {w: full}\nchain:\n  - linear\n  - batch_norm: {weight: w}\n",
        "'weight' of batch_norm lives in its torch.nn.BatchNorm1d",
        5,
    ),
    ("chain:\n  - batch_norm\n", "batch_norm needs 'features'", 2),
    ("chain:\n  - div: 0\n", "not finite", 2),
    ("chain:\n  - mul: 0\n", "does not depend on x", 2),
    ("chain:\n  - dropout: {p: 1}\n", "not finite", 2),
    ("chain:\n  - add: 1e999\n", "too large for a double", 2),
    # sources and labels
    ("chain:\n  - max_pool2d: 2\n", "'max_pool2d' is no op: it looks at a window of elements", 2),
    ("dims: 4\nchain:\n  - softmax: {dim: 4}\n", "dim 4 does not exist: the activation has 4", 3),
    ("dims: 9\nchain:\n  - swish\n", "dims must be a number from 2 to 8", 1),
    ("dims: 3\nchain:\n  - conv2d\n", "dims is 3, but conv2d gives an activation of 4 dims", 1),
    (LINEAR + "chain:\n  - swish\n  - linear\n", "linear can only be the first step", 4),
    ("chain:\n  - linear\n", "linear needs 'in_features': declare `in_features: int`", 2),
    (LINEAR + "chain:\n  - linear: {bias: 1}\n", "must be true or false", 3),
    (LINEAR + "chain:\n  - linear: {in_features: p}\n", "must be an int argument", 3),
    (LINEAR + "chain:\n  - linear: {in_features: 0}\n", "must be an int argument", 3),
    (LINEAR + "chain:\n  - linear: {weight: p}\n", "no attribute or operand 'weight'", 3),
    (LINEAR + "chain:\n  - linear: 3\n", "its settings by name", 3),
    (
        "chain:\n  - dropout\n  - dropout\n",
        "give this step another: - dropout: {name: dropout_2}",
        3,
    ),
    ("arguments: {d: float}\nchain:\n  - gelu: {name: d}\n", "an argument or operand", 3),
    # what torch has and a kernel has not
    ("chain:\n  - relu: {inplace: true}\n", "relu takes no 'inplace': a kernel writes a new", 2),
    ("chain:\n  - div: {other: 2, rounding_mode: floor}\n", "div takes no 'rounding_mode': a r", 2),
    (
        "chain:\n  - layer_norm: {normalized_shape: 8}\n",
        "give the dims that it is of, dim: [2, 3]",
        2,
    ),
    ("chain:\n  - std: {dim: 1, unbiased: true}\n", "give correction: 1 for true, 0 for false", 2),
    ("chain:\n  - norm: {p: fro}\n", "'p' of norm must be a number", 2),
    # formulas
    ("chain:\n  - swish\n  - expr: x +\n", "ends too early", 3),
    ("chain:\n  - expr: x^2\n", "column 2: '^' does not belong", 2),
    ("chain:\n  - expr: x * tnh(x)\n", "column 5: unknown function 'tnh'; did you mean 'tanh'?", 2),
    (COL + "chain:\n  - expr: x * ww\n", "unknown name 'ww'; did you mean 'w'?", 4),
    ("arguments: {n: int}\nchain:\n  - expr: x * n\n", "unknown name 'n'", 3),
    ("chain:\n  - expr: 3\n", "expr takes a formula in quotes", 2),
    ("chain:\n  - expr\n", "expr takes a formula in quotes", 2),
    ("chain:\n  - expr: ''\n", "the formula is empty", 2),
    ("chain:\n  - expr: 1 + 1\n", "does not depend on x", 2),
    ("chain:\n  - expr: x - x\n", "does not depend on x", 2),
    ("chain:\n  - clamp\n", "clamp needs min or max", 2),
    ("chain:\n  - norm: {p: inf}\n", "norm with p inf needs a dim", 2),
    ("operands: {t: row}\nchain:\n  - nll_loss: t\n", "declare t: {kind: row, dtype: int64}", 3),
    ("operands: {t: {kind: row, dtype: int64}}\nchain:\n  - mul: t\n", "holds int64 numbers", 3),
    ("operands: {t: {kind: col, dtype: int64}}\nchain: [mish]\n", "an input of kind row", 1),
    ("chain:\n  - amax\n", "amax needs 'dim'", 2),
    ("chain:\n  - expr: x * sum(2)\n", "reduces a constant", 2),
    ("arguments: {a: float}\nchain:\n  - expr: x * sum(a)\n", "the same in every column", 3),
    ("chain:\n  - expr: x - max(mean(x))\n", "the same in every column", 2),
    ("chain:\n  - expr: x * sqrt(-1)\n", "no real number", 2),
]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[str | bytes], SpecError]:
    """Return a function that loads a text from a file and returns the error that this raises."""

    def load_text(text: str | bytes) -> SpecError:
        path = tmp_path / "example.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SpecError) as caught:
            load(path)
        assert caught.value.file == path
        assert "\n" not in caught.value.message
        return caught.value

    return load_text


@pytest.mark.parametrize(("text", "message", "line"), MISTAKES)
def test_every_mistake_is_one_message_with_its_line(
    refused: Callable[[str | bytes], SpecError], text: str, message: str, line: int
) -> None:
    error = refused(text)
    assert message in error.message
    assert error.line == line
    assert str(error) == f"{error.file}:{line}: {error.message}"


def test_a_file_that_is_not_utf_8(refused: Callable[[str | bytes], SpecError]) -> None:
    error = refused(b"# caf\xc3\xa9\nchain: [\xff]\n")
    assert "not UTF-8" in error.message
    assert error.line == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent\.yaml: cannot be read"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["Swish", "2swish", "a-b", "a.b", "", "class", "_a", "a" * 65, "../a", "int", "é"]
)
def test_a_file_whose_name_cannot_be_a_package(name: str) -> None:
    with pytest.raises(SpecError, match=r"package|longer|keyword"):
        parse("chain: [swish]\n", name)


def test_the_reserved_attributes_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    public = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
    assert public <= spec_names._MODULE


# Nothing but a SpecError ever comes out.

WORDS = st.sampled_from(
    [
        *("chain", "arguments", "operands", "order", "description", "name", "kind", "type", "init"),
        *("swish", "add", "linear", "expr", "softmax", "dim", "float", "col", "ones", "x", "w"),
    ]
)
DATA = st.recursive(
    st.one_of(WORDS, st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)


def error_of(text: str) -> SpecError | None:
    """Return the error in a spec's text, or None if there is none."""
    try:
        parse(text, "example")
    except SpecError as error:
        return error
    return None


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.dictionaries(WORDS, DATA, max_size=5), DATA)
def test_random_data_raises_nothing_else(data: dict[str, Any], steps: Any) -> None:
    import yaml

    error = error_of(yaml.safe_dump({"chain": steps, **data}, allow_unicode=True))
    assert error is None or (error.line and "pydantic" not in str(error))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_random_text_raises_nothing_else(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text, "example")


def test_null_is_a_value_where_an_op_documents_none() -> None:
    assert parse("chain:\n  - sum: {dim: null}\n", "example").steps[0].attributes["dim"] is None
    clamp = parse("chain:\n  - clamp: {min: ~, max: 2}\n", "example").steps[0]
    assert clamp.attributes == {"min": None, "max": 2.0}


def test_an_argument_of_two_steps_is_named_by_both() -> None:
    text = (
        "arguments: {in_channels: int, out_channels: int, kernel_size: int, groups: int}\nchain:\n"
        "  - conv2d: {groups: %s}\n  - group_norm: {num_groups: groups}\n"
    )
    assert parse(text % "groups", "example").steps[0].settings["groups"].name == "groups"  # type: ignore[union-attr]
    assert parse(text % 1, "example").steps[0].settings["groups"] == 1


def test_the_name_of_a_file_must_start_with_a_letter() -> None:
    with pytest.raises(SpecError, match="starts with a letter"):
        parse("chain: [swish]\n", "2d_norm")


@pytest.mark.parametrize(
    ("operands", "order", "message"),
    [
        (62, 1, ""),
        (62, 2, r"the double_backward would take 127 tensors and numbers.*: set order: 1, or make"),
        (63, 1, r"the backward would take 65 tensors and numbers.* at most 64: make two chains"),
    ],
)
def test_more_operands_than_torch_takes_are_refused(
    operands: int, order: int, message: str
) -> None:
    """torch ends the process that loads an operator of more than 64 arguments."""
    names = [f"w{i}" for i in range(operands)]
    kinds = ", ".join(f"{name}: col" for name in names)
    text = f"operands: {{{kinds}}}\norder: {order}\nchain:\n  - expr: x + {' + '.join(names)}\n"
    spec = parse(text, "example")
    if not message:
        assert len(derive(spec).operands) == operands
        return
    with pytest.raises(SpecError, match=message):
        derive(spec)
