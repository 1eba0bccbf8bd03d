"""`fusegen new`: a first spec, which is valid whatever its steps are."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.command import fusegen_here

from fusegen import chain
from fusegen.base.errors import UserError
from fusegen.ops import registry
from fusegen.spec import parse
from fusegen.tools.new_spec import new_spec


@pytest.mark.parametrize("name", [name for name, op in registry().items() if not op.source])
def test_any_op_makes_a_spec(name: str) -> None:
    for steps in ([name], ["gelu", name], ["linear", "gelu", name]):
        spec = parse(new_spec("first", steps), "first")
        assert spec.steps[-1].op is registry()[name] or registry()[name].by_probabilities


@pytest.mark.parametrize("name", [name for name, op in registry().items() if op.source])
def test_any_source_starts_one(name: str) -> None:
    spec = parse(new_spec("first", [name, "gelu", "x * tanh(x)"]), "first")
    assert [step.label for step in spec.steps][1:] == ["gelu", "expr"]


@pytest.mark.parametrize(
    "steps",
    [
        *(
            [name, "add"]
            for name, op in registry().items()
            if "keepdim" in op.attributes and not op.indexes
        ),
        ["conv2d", "min", "sum", "gelu", "add"],
        ["avg_pool2d", "conv2d", "batch_norm", "relu"],
        ["max_pool2d", "batch_norm", "relu"],
        ["bmm", "flatten", "linear", "gelu"],
        ["matmul", "add", "gelu"],
    ],
    ids=" ".join,
)
def test_later_steps_have_what_they_need(steps: list[str]) -> None:
    """The dims that a reduction leaves, a width, a name of their own: the chain can be derived."""
    chain.derive_all(parse("order: 0\n" + new_spec("first", steps), "first"))


def test_names_of_torch_are_understood_and_others_refused() -> None:
    assert "- softmax: {dim: -1}" in new_spec("first", ["nn.Softmax"])
    with pytest.raises(UserError, match="stays with torch"):
        new_spec("first", ["view"])


def test_the_command_writes_a_spec_and_its_schema(tmp_path: Path) -> None:
    done = fusegen_here("new", "mine", "--steps", "linear, add, gelu", cwd=tmp_path)
    assert done.returncode == 0
    assert "`fusegen build mine.yaml`" in done.stdout
    text = (tmp_path / "mine.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=fusegen.schema.json\n")
    assert "other: full" in text
    assert (tmp_path / "fusegen.schema.json").is_file()
    again = fusegen_here("new", "mine", "--steps", "gelu", cwd=tmp_path)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert (tmp_path / "mine.yaml").read_text() == text


def test_each_of_several_products_has_its_own_name_and_sizes() -> None:
    text = new_spec(
        "several", ["conv2d", "batch_norm", "max_pool2d", "conv2d", "flatten", "linear", "gelu"]
    )
    assert "- max_pool2d: {kernel_size: kernel_size_2}" in text
    assert (
        "- conv2d: {name: conv2d_2, out_channels: out_channels_2, kernel_size: kernel_size_3}"
        in text
    )
    assert text.endswith("  - flatten\n  - linear\n  - gelu\n")
    assert "  in_features: int\n" in text
    text = new_spec("several", ["linear", "relu", "linear", "glu"])
    assert text.endswith(
        "- linear: {name: linear_2, out_features: out_features_2}\n  - glu: gate\n"
    )
