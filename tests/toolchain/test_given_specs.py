"""Specs as text and as dicts: `fusegen.build` takes them by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from shared.command import fusegen_here

import fusegen
from fusegen import spec
from fusegen.base.errors import UserError
from fusegen.toolchain import builder
from fusegen.toolchain.compilers import is_native

TEXT = """operands: {gate: full}
chain:
  - expr: {formula: "x * gate + 1e-5", name: gated}
  - softmax: {dim: -1}
"""
DICT = {
    "operands": {"gate": "full"},
    "chain": [{"expr": {"formula": "x * gate + 1e-5", "name": "gated"}}, {"softmax": {"dim": -1}}],
}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that a build is asked for."""
    found: list[Path] = []

    def build(paths: Sequence[Path], **options: Any) -> list[Any]:
        del options
        found.extend(builder.expand(paths))
        return []

    monkeypatch.setattr(builder, "build", build)
    return found


def test_text_and_a_dict_are_the_spec_of_a_file(tmp_path: Path, built: list[Path]) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text(TEXT)
    fusegen.build(plain, {"as_text": TEXT, "as_dict": DICT}, out=tmp_path / "out", quiet=True)
    assert [path.stem for path in built] == ["plain", "as_text", "as_dict"]
    steps = [
        [
            (step.label, step.op, str(step.formula), step.attributes)
            for step in spec.load(path).steps
        ]
        for path in built
    ]
    assert steps[0] == steps[1] == steps[2]
    assert steps[0][0][2] == "gate*x + 1.0e-5"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"chain": ["gelu"]}, r"name it: fusegen.build\({\"my_chain\": …}\)"),
        ({"My-Chain": DICT}, "'My-Chain' cannot name a package"),
        ({"class": DICT}, "is a keyword of Python or C\\+\\+; choose another name"),
        ({"wrong": 3}, "the spec 'wrong' is int; give its text or a dict"),
        ({"wrong": {"chain": [object()]}}, "has a value that YAML cannot write"),
        ("chain:\n  - gelu\n", "a spec as text needs a name"),
        (["a.yaml", "b.yaml"], r"several are several arguments: fusegen.build\(\*specs\)"),
    ],
)
@pytest.mark.usefixtures("built")
def test_what_is_no_spec_by_name_is_one_message(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        fusegen.build(given, out=tmp_path, quiet=True)


def test_a_mistake_names_its_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"wrong.yaml:2: .*'gelu'"):
        fusegen.build({"wrong": "chain:\n  - gelo\n"}, out=tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "gpu"}, "--backend gpu: not known"),
        ({"dtypes": "float33"}, "--dtypes float33: no dtype of a kernel; did you mean 'float32'"),
        ({"dtypes": [torch.int8]}, "--dtypes int8: no dtype of a kernel"),
        ({"dtypes": "bf16,int8"}, "--dtypes int8"),
    ],
)
def test_an_option_that_is_none_is_one_message(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        fusegen.build({"fine": DICT}, out=tmp_path, quiet=True, **options)


def test_fuse_says_what_is_no_model() -> None:
    with pytest.raises(UserError, match=r"make one, Linear\(...\)"):
        fusegen.fuse(torch.nn.Linear, torch.zeros(1))
    with pytest.raises(UserError, match=r"fusegen.build\('my.yaml'\) builds it"):
        fusegen.fuse("my.yaml")


def test_a_build_is_for_this_machine_unless_it_is_to_be_portable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FUSEGEN_NATIVE", raising=False)
    found = []

    def build(paths: Sequence[Path], **options: Any) -> list[Any]:
        del paths, options
        found.append(is_native())
        return []

    monkeypatch.setattr(builder, "build", build)
    for portable in (True, False):
        fusegen.build({"fine": DICT}, out=tmp_path, portable=portable)
        fusegen.build({"fine": DICT}, out=tmp_path, portable=portable, quiet=True)
    (tmp_path / "fine.yaml").write_text(TEXT)
    assert fusegen_here("build", "fine.yaml", "--portable", cwd=tmp_path).returncode == 0
    assert fusegen_here("build", "fine.yaml", cwd=tmp_path).returncode == 0
    assert found == [False, False, True, True, False, True]
    assert "FUSEGEN_NATIVE" not in os.environ
    monkeypatch.setenv("FUSEGEN_NATIVE", "1")
    fusegen.build({"fine": DICT}, out=tmp_path, portable=True, quiet=True)
    assert not found[-1]
    assert os.environ["FUSEGEN_NATIVE"] == "1"
