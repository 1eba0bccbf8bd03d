"""Every mistake in a spec is one message with its file and line, and nothing else is ever raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from shared.spec_mistakes import MISTAKES

from fusegen.base.errors import SpecError
from fusegen.chain import derive
from fusegen.spec import load, parse
from fusegen.spec import names as spec_names


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
        (62, 2, r"the double_backward would take 126 tensors and numbers.*: set order: 1, or make"),
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
