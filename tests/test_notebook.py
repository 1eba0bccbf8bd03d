"""What a notebook shows of the objects that people hold there."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from shared.report_pages import model_report

import fusegen
from fusegen.toolchain import builder
from fusegen.toolchain.results import BuildResult, BuildResults


def test_a_report_shows_its_graph_and_its_regions() -> None:
    shown = model_report()._repr_html_()
    assert type(shown) is str  # a Markup escapes what is put into it
    root = ET.fromstring(shown)
    text = " ".join(root.itertext())
    assert "2 of 3 regions fused, in 1 graph; a forward pass moves 4.0 MB less" in text
    assert [t.text for t in root.iter("th")][:3] == ["fused", "times", "shape"]
    rows = [[cell.text for cell in row] for row in root.iter("tr")]
    assert ["add gelu", "2", "[8, 16]", "3.00", "1.00", "one"] in rows
    assert ["mul", "1", "[4, <b>]", "it is too small"] in rows
    assert ["conv", "3", "torch computes it"] in rows
    looks = [g.get("class") for g in root.iter("g")]
    assert (looks.count("region"), looks.count("unfused")) == (1, 1)


def test_a_report_of_nothing_is_its_summary() -> None:
    from fusegen.models import Report

    root = ET.fromstring(Report()._repr_html_())
    assert "nothing to fuse, in 0 graphs" in " ".join(root.itertext())
    assert not list(root.iter("table"))


@pytest.mark.usefixtures("specs_by_torch")
def test_the_report_of_a_fused_model_has_it() -> None:
    model = torch.nn.Sequential(torch.nn.GELU(), torch.nn.Tanh())
    found = fusegen.report(fusegen.fuse(model, torch.randn(8, 8), everything=True))
    assert "<svg" in found._repr_html_()


def test_a_package_is_its_docstring(generated: Path) -> None:
    package = fusegen.load("swish_tanh_mish", generated)
    shown = package._repr_markdown_()
    assert shown.startswith("**swish_tanh_mish: swish -> tanh -> mish.**\n")
    assert "    >>> y = apply(x)" in shown
    assert f"Built for float64, float32, bfloat16, float16; `{package.__file__}`" in shown


def test_results_of_a_build_are_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = [
        BuildResult("one", ("cpu", "cuda"), True, ("one/_cpu.so",), 2.04),
        BuildResult("<two>", ("cpu",), False, (), 0.0),
    ]
    monkeypatch.setattr(builder, "build", lambda *_, **__: made)
    for quiet in (True, False):
        found = fusegen.build({"one": {"chain": ["relu"]}}, out=tmp_path, quiet=quiet)
        assert found == made
        rows = [[c.text for c in row] for row in ET.fromstring(found._repr_html_()).iter("tr")]
        assert rows[1:] == [
            ["one", "cpu cuda", "built, 2.0 s of compilers"],
            ["<two>", "cpu", "up to date"],
        ]
    assert BuildResults()._repr_html_().count("<tr>") == 1
