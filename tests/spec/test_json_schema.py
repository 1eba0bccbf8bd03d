"""The JSON Schema that editors read: it takes every valid spec, and refuses mistakes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ROOT
from shared.command import fusegen
from shared.spec_mistakes import MISTAKES

from fusegen.base.errors import SpecError
from fusegen.ops import aliases, registry
from fusegen.spec import parse
from fusegen.spec.json_schema import json_schema
from fusegen.spec.yaml import read

MODELS = ROOT / "benchmarks" / "models.yaml"  # many, with what they are measured on
SPECS = sorted(
    path
    for folder in ("specs", "benchmarks")
    for path in (ROOT / folder).rglob("*.yaml")
    if path != MODELS
)


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def problems(validator: jsonschema.Draft7Validator, text: str) -> list[str]:
    return [error.message for error in validator.iter_errors(read(text).data)]


def test_the_committed_schema_is_the_present_one() -> None:
    """In a process of its own, which knows no ops that other tests declare."""
    done = fusegen("schema")
    assert (ROOT / "specs" / "fusegen.schema.json").read_text() == done.stdout, (
        "run `fusegen schema --out specs/fusegen.schema.json`"
    )


def test_specs_refer_to_it() -> None:
    for path in (ROOT / "specs").glob("*.yaml"):
        first = path.read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=fusegen.schema.json", path


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_it_takes_the_specs_here(validator: jsonschema.Draft7Validator, path: Path) -> None:
    assert problems(validator, path.read_text()) == []


def test_it_takes_the_examples_of_the_language(validator: jsonschema.Draft7Validator) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "specs.md").read_text(), re.DOTALL)
    assert len(blocks) > 10
    for block in blocks:
        assert problems(validator, block) == [], block


#: Forms that the files here have not.
FORMS = [
    "chain:\n  - gelu: {}\n",
    "chain:\n  - gelu: tanh\n",
    "chain:\n  - clamp: {max: 1}\n",
    "chain:\n  - sum: {dim: null}\n",
    "chain:\n  - softmax: 1\n",
    "dims: 4\nchain:\n  - mean: {dim: [2, 3], keepdim: true}\n",
    "operands: {m: {kind: full, dtype: bool}}\nchain:\n  - masked_fill: {mask: m, value: -inf}\n",
    "arguments: {p: {type: float, default: 0.5}}\nchain:\n  - dropout: {p: p}\n",
    "chain:\n  - layer_norm: {elementwise_affine: true, features: 8, dtype: float32}\n",
    "arguments: {bias: bool}\nchain:\n  - linear: {in_features: 4, out_features: 2 * 4, bias: bias}\n",
    "arguments: {n: int}\nchain:\n  - conv2d: {in_channels: n, out_channels: n, kernel_size: [1, 3]}\n",
    "outputs: [{name: sum, dtype: float32}]\nchain:\n  - sum: {dim: -1}\n",
    "launch: {backward: {waves: 4}}\nchain:\n  - expr: {formula: x - mean(x), dim: 1}\n",
]


@pytest.mark.parametrize("text", FORMS)
def test_it_takes_every_form(validator: jsonschema.Draft7Validator, text: str) -> None:
    if "2 * 4" not in text:  # a multiple is one of an argument
        parse(text, "example")
    assert problems(validator, text) == []


@pytest.mark.parametrize(
    "text",
    [
        "chian: [gelu]\n",
        "chain: [geul]\n",
        "chain: [add]\n",
        "chain:\n  - gelu: {approximate: tnah}\n",
        "chain:\n  - softmax: {axis: 1}\n",
        "chain:\n  - dropout: {p: 2}\n",
        "chain:\n  - expr: {formul: x}\n",
        "chain:\n  - {gelu: {}, relu: {}}\n",
        "operands: {w: vector}\nchain: [gelu]\n",
        "arguments: {n: integer}\nchain: [gelu]\n",
        "dtypes: [bf16]\nchain: [gelu]\n",
        "order: 4\nchain: [gelu]\n",
        "launch: {backward: {waves: 3}}\nchain: [gelu]\n",
    ],
)
def test_it_refuses_mistakes(validator: jsonschema.Draft7Validator, text: str) -> None:
    assert problems(validator, text)


def test_it_finds_a_good_part_of_all_mistakes(validator: jsonschema.Draft7Validator) -> None:
    """Types and names it finds; what depends on other parts of the spec, only fusegen does."""
    found = total = 0
    for text, _, _ in MISTAKES:
        try:
            data: Any = read(text).data
        except SpecError:  # not even YAML, which an editor says by itself
            continue
        total += 1
        found += bool(list(validator.iter_errors(data)))
    assert found > total / 4


def test_every_op_is_described() -> None:
    schema = json_schema()
    step = schema["definitions"]["step"]["anyOf"][1]["properties"]
    assert set(step) == {*registry(), *aliases(), "expr"}
    for name, op in registry().items():
        described = schema["definitions"][f"op_{name}"]
        assert described["description"].startswith(op.statement)
        keys = described["anyOf"][-1]["properties"]
        assert {*op.attributes, "name"} <= set(keys)
    assert json.loads(json.dumps(schema)) == schema
