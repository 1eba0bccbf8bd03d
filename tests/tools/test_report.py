"""`fusegen report`: one page that holds every formula, needs no network, and escapes what specs say."""

from __future__ import annotations

import math
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from markupsafe import escape
from shared.command import fusegen_here
from shared.report_pages import HOSTILE, hostile_page, model_report

from fusegen.chain import Chain, derive
from fusegen.lower.polynomials import elementary
from fusegen.spec import parse
from fusegen.spec.code_names import code_names
from fusegen.tools.against_eager.bench import Timed
from fusegen.tools.bench import machine, measure
from fusegen.tools.bench.record import Cell, Record
from fusegen.tools.check.every_number import beyond, ulps
from fusegen.tools.check.reference import run_chain
from fusegen.tools.report import errors, times
from fusegen.tools.report.approximations import elementary_of
from fusegen.tools.report.kernels import kernels_of
from fusegen.tools.report.model import part_of
from fusegen.tools.report.one_variable import why_not, with_derivatives
from fusegen.tools.report.page import page, render
from fusegen.tools.report.times import times_of_chains, times_of_model
from fusegen.tools.typeset import equations

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Tags(HTMLParser):
    """Collects elements, ids and references; each element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.references: set[str] = set()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        for name, value in attrs:
            assert value is not None or name == "open"
            if name == "id":
                self.ids[str(value)] += 1
            if name in ("href", "src", "srcset", "data", "action", "poster", "xlink:href"):
                self.references.add(str(value))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return hostile_page(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def curved(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two chains, each with its curves: no id may occur twice."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("curved")
    for name, op in (("first", "tanh"), ("second", "mish")):
        (folder / f"{name}.yaml").write_text(f"order: 2\nchain:\n  - {op}\n")
    return page([(folder / f"{name}.yaml", folder) for name in ("first", "second")])


@pytest.mark.parametrize("which", ["hostile", "curved"])
def test_the_page_is_whole_and_needs_no_network(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which)
    tags = Tags(text)
    assert not tags.seen["script"]
    assert not tags.seen["link"]
    assert set(tags.ids.values()) == {1}
    assert {r for r in tags.references if not r.startswith("#")} == set()
    assert {r[1:] for r in tags.references} <= set(tags.ids)
    assert re.findall(r"url\((?!#)|@import|https?://", text) == []
    assert set(re.findall(r"url\(#([^)]+)", text)) <= set(tags.ids)


@pytest.mark.parametrize("which", ["hostile", "curved"])
def test_mathml_and_pictures_are_well_formed(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which)
    for tag in ("math", "svg"):
        for element in re.findall(rf"<{tag}\b.*?</{tag}>", text, re.DOTALL):
            ET.fromstring(element)
    assert text.count("<svg") == {"hostile": 1, "curved": 2}[which]


def test_what_a_spec_says_is_escaped(hostile: str) -> None:
    assert "a &lt; b &amp; &lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in hostile
    assert "where(x &lt; 0, softmax(x), x)" in hostile
    assert "<script" not in hostile


def test_the_page_holds_each_formula(hostile: str) -> None:
    chain = derive(parse(HOSTILE, "hostile"))
    for mode in chain.modes:
        for found in equations(mode.programs):
            assert [e.name for e in found if e.mathml not in hostile] == []
            assert [e.name for e in found if escape(e.tex) not in hostile] == []
    for kernel in kernels_of(chain, {}):
        assert kernel.why in hostile


def test_the_page_of_a_package_that_is_not_built_says_so(hostile: str) -> None:
    assert "Not measured: hostile: " in hostile
    assert "does not exist" in hostile
    assert "No curves: the chain takes weight too." in hostile


def test_the_colours_of_pictures_are_those_of_the_page(curved: str) -> None:
    pictures = "".join(re.findall(r"<svg\b.*?</svg>", curved, re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", pictures)) == set()
    used = set(re.findall(r"var\((--[\w]+)\)", pictures))
    assert used <= set(re.findall(r"(--\w+):", curved))


def test_without_matplotlib_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / "one.yaml").write_text("order: 1\nchain: [tanh]\n")
    text = page([(tmp_path / "one.yaml", tmp_path)])
    assert "<svg" not in text
    assert "No curves: pictures need matplotlib" in text
    assert "Formulas" in text


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ("[mish, {leaky_relu: {negative_slope: 0.1}}]", ""),
        ("[{expr: x * slope}]", ""),
        ("[softmax]", "a value depends on its whole row"),
        ("[{dropout: {p: 0.1}}]", "the chain differs in training and in evaluation"),
        ("[{layer_norm: {dim: -1}}]", "whole row"),
    ],
)
def test_which_chains_are_of_one_variable(steps: str, reason: str) -> None:
    text = f"arguments: {{slope: float}}\nchain: {steps}\n" if "slope" in steps else ""
    if "leaky" in steps or not text:
        text = f"chain: {steps}\n"
    found = why_not(derive(parse(text, "example")))
    assert reason in found
    assert bool(reason) == bool(found)


def test_derivatives_are_those_of_autograd(derived: Callable[[str], Chain]) -> None:
    x = torch.linspace(-3, 3, 41, dtype=torch.float64).requires_grad_()
    wanted = [torch.nn.functional.mish(torch.tanh(torch.nn.functional.silu(x)))]
    for _ in range(3):
        wanted += torch.autograd.grad(wanted[-1].sum(), x, create_graph=True)
    found = with_derivatives(derived("swish_tanh_mish"), x.detach())
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other.detach(), rtol=1e-9, atol=1e-11)


def test_ulps_are_the_distance_in_numbers() -> None:
    truth = torch.tensor([1.0, 1.0, 3.0, math.inf, math.nan, 1e-45, 1.0], dtype=torch.float64)
    got = torch.tensor([1.0, 1.0078125, 3.03125, math.inf, math.nan, 0, math.nan]).bfloat16()
    assert ulps(got, truth).tolist() == [0, 1, 2, 0, 0, 0, math.inf]
    near = torch.tensor([1.002], dtype=torch.float64)
    assert ulps(got[:1], near).item() == pytest.approx(0.256)
    assert beyond(got[:1], near).item() == 0


def test_errors_are_told_from_eagers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that rounds once, and one that is wrong for some arguments."""
    chain = derive(parse("order: 1\nchain: [mish, tanh]\n", "example"))

    def exact(x: torch.Tensor) -> torch.Tensor:
        return run_chain(chain.spec, x.double(), {}, {}).to(x.dtype)

    package = SimpleNamespace(apply=exact)
    monkeypatch.setattr(errors, "load_package", lambda *_: package)
    monkeypatch.setattr(errors, "_dtypes", lambda *_: ["bfloat16"])
    value, slope = errors.errors_at_every_number(chain, Path())
    assert len(value.x) == 65_280
    assert value.own.max() <= 0.5
    assert value.eager.max() > 0.6
    assert slope.eager.max() > 0.6
    package.apply = lambda x: exact(x) * torch.where((x > 2) & (x < 3), 1.05, 1.0)
    value, slope = errors.errors_at_every_number(chain, Path())
    assert 2 < float(value.x[value.own.argmax()]) < 3
    assert value.own.max() > 5


def test_errors_of_a_call_are_told_from_eagers(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = derive(parse("order: 1\ndtypes: [bfloat16]\nchain: [mish, softmax]\n", "example"))

    def exact(x: torch.Tensor) -> torch.Tensor:
        return run_chain(chain.spec, x.double(), {}, {}).to(x.dtype)

    monkeypatch.setattr(errors, "load_package", lambda *_: SimpleNamespace(apply=exact))
    monkeypatch.setattr(errors, "_dtypes", lambda *_: ["float64", "bfloat16"])
    rows = {row.name: row for row in errors.errors_of_a_call(chain, Path())}
    assert set(rows) == {"output", "grad_x"}
    assert all(row.own <= 0.6 for row in rows.values())
    assert all(row.eager > row.own for row in rows.values())
    monkeypatch.setattr(errors, "_dtypes", lambda *_: ["float64"])
    with pytest.raises(errors.NotMeasured, match="built for neither bfloat16 nor float32"):
        errors.errors_of_a_call(chain, Path())


def test_kernels_say_why_they_have_their_form(derived: Callable[[str], Chain]) -> None:
    whys = {k.name: k for k in kernels_of(derived("temperature_softmax"), {})}
    assert "reduces each row" in whys["forward"].why
    assert whys["forward"].gpu[1] == ("gpu_rows.cuh",)
    flat = kernels_of(derived("swish_tanh_mish"), {})[0]
    assert "one long row" in flat.why
    assert flat.cpu[1] == ("cpu_pointwise.h",)
    forms = ROOT / "templates" / "include" / "fusegen" / "forms"
    for kernel in (*whys.values(), flat):
        assert all((forms / name).is_file() for name in (*kernel.cpu[1], *kernel.gpu[1]))


def test_launch_parameters_are_those_that_are_compiled(derived: Callable[[str], Chain]) -> None:
    (forward, *_) = kernels_of(derived("swish_tanh_mish"), {"forward": {"rows_in_flight": 7}})
    assert {name: value for name, value, _ in forward.launch}["rows_in_flight"] == 7


def test_each_polynomial_belongs_to_a_function() -> None:
    include = ROOT / "templates/include/fusegen"
    text = "".join((include / f"{n}.h").read_text() for n in ("logarithms", "angles", "elementary"))
    functions = sorted(set(re.findall(r"FUSEGEN_FN \w+ (\w+)\(", text)))
    found = elementary_of(functions)
    assert len(found) == len(elementary.RECIPES)
    (erf,) = [a for a in elementary_of(["erf"]) if a.formula.startswith("erf(x) / x")]
    assert erf.functions == ("erf",)
    assert "degree" in erf.accuracy["float32"]
    assert "degree" in erf.accuracy["16 bits"]
    assert elementary_of(["floor"]) == []  # the C library's


def test_a_model_has_its_regions_and_the_reasons() -> None:
    part = part_of("model.py:Net", model_report())
    assert [(row.count, row.saved) for row in part.fused] == [(2, 4_000_000)]
    text = render([], part)
    Tags(text)
    assert "it is too small" in text
    assert "4 of 5 ops with others beside them are fused" in text
    assert "[4, &lt;b&gt;]" in text
    assert "saves a forward pass 4 MB" in text
    assert "width: 33.3%" in text
    assert "torch computes it" in text


@pytest.mark.usefixtures("specs_by_torch")
def test_a_model_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\ndef net(x):\n    return torch.tanh(x * 2).softmax(-1)\n"
    )
    done = fusegen_here(*("report", "net.py:net", "--inputs", "8x16", "--everything"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "report.html").read_text()
    assert "1 of 1 regions fused" in text
    assert "<code>softmax</code>" in text


def test_words_of_the_page_are_no_names_of_cpp() -> None:
    words = ["scale", "figure", "article", "summary", "details"]
    assert code_names(words, []) == {word: word for word in words}


def test_each_package_of_a_page_has_a_name_of_its_own(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.yaml").write_text("order: 0\nchain: [relu]\n")
    done = fusegen_here("report", "here", "there/one.yaml", cwd=tmp_path)
    assert (done.returncode, "rename one" in done.stderr) == (2, True)
    assert fusegen_here("report", "here", "-o", "a.html", cwd=tmp_path).returncode == 0
    assert 'id="one"' in (tmp_path / "a.html").read_text()


def test_a_file_of_someone_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("order: 0\nchain: [relu]\n")
    (tmp_path / "report.html").write_text("mine")
    done = fusegen_here("report", "one.yaml", cwd=tmp_path)
    assert (done.returncode, "--force" in done.stderr) == (2, True)
    assert (tmp_path / "report.html").read_text() == "mine"
    assert fusegen_here("report", "one.yaml", "--force", cwd=tmp_path).returncode == 0
    assert fusegen_here("report", "one.yaml", cwd=tmp_path).returncode == 0  # its own
    assert fusegen_here("report", "one.yaml", "--everything", cwd=tmp_path).returncode == 2


def test_times_are_measured_and_never_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hostile: str
) -> None:
    assert "fusegen report one --time" in page([(_relu(tmp_path), tmp_path)])
    assert re.search(r"fusegen</dt>\s*<dd>.*60 µs, 1.20 ×", hostile)
    assert re.search(r"byte limit</dt>\s*<dd>.*width: 10.0%.* 50 µs</dd>", hostile)
    missing = times_of_chains(_relu(tmp_path), tmp_path, "cpu", lambda _: None)["one"]
    assert "one/__init__.py does not exist; run `fusegen build" in missing.reason
    wanted: list[measure.Run] = []

    def run(asked: measure.Run, say: object) -> Record:
        del say
        wanted.append(asked)
        cell = Cell(
            "tail", "one", "float32", 1024, 8192, None, "forward", 8, 2, 4, 3, None, 5, 1, None
        )
        return Record(machine.describe("cpu"), [cell])

    monkeypatch.setattr(measure, "run", run)
    found = times_of_chains(_relu(tmp_path), tmp_path, "cpu", lambda _: None)["one"]
    assert [group.title for group in wanted[0].groups] == ["tail one float32 1024x8192"]
    assert found.passes[0].ms == {"byte limit": 1, "fusegen": 2, "eager": 4, "torch.compile": 3}
    text = page([(_relu(tmp_path), tmp_path)], times={"one": found})
    assert "float32, 1024 × 8192" in text
    assert "4 ms, 4.00 ×" in text


def _relu(folder: Path) -> Path:
    path = folder / "one.yaml"
    path.write_text("order: 1\nchain: [relu]\n")
    return path


def test_a_model_is_timed_on_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text("import torch\n\ndef net(x):\n    return torch.tanh(x * 2)\n")
    asked = []

    def bench(_: object, backends: dict[str, object], *__: object) -> list[Timed]:
        asked.append(list(backends))
        return [Timed("float32", "forward", {"fusegen": 0.5, "eager": 1.0})]

    monkeypatch.setattr(times, "bench", bench)
    monkeypatch.chdir(tmp_path)
    found = times_of_model("net.py:net", "8x16", "cpu", print, everything=True)
    assert asked == [["fusegen", "eager", "torch.compile"]]
    assert (found.what, found.passes[0].text("eager")) == ("float32, inputs 8x16", "1 ms")
    assert "1 ms</dd>" in render([], part_of("net.py:net", model_report()), model_times=found)
    assert "fusegen report net.py:net --inputs … --time" in render(
        [], part_of("net.py:net", model_report())
    )
