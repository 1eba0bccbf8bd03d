"""Whatever a spec says, the outcome is an error with file and line or a package, in bounded time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import ROOT
from shared.mutants import mutant

from fusegen import chain, render
from fusegen.base import activity
from fusegen.base.activity import doing, reported
from fusegen.base.errors import SpecError, UserError
from fusegen.spec import parse
from fusegen.toolchain import builder

FOLDERS = ("specs", "tests/chains", "tests/segments", "benchmarks/specs")
TEXTS = [p.read_text() for f in FOLDERS for p in sorted((ROOT / f).glob("*.yaml"))]
#: Mutants of the suite, in groups that are a test each, and the seconds of the processor that one may take.
GROUPS, EACH, LIMIT = 10, 15, 30.0


def mistake(text: str, path: Path) -> SpecError | None:
    """Return what is wrong with a spec, or None if it becomes a package; nothing else may be raised."""
    try:
        render.render(chain.derive(parse(text, "mutant", path)))
    except SpecError as error:
        return error
    return None


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_mutant_is_an_error_with_file_and_line_or_a_package(group: int, tmp_path: Path) -> None:
    path = tmp_path / "mutant.yaml"
    for seed in range(group * EACH, (group + 1) * EACH):
        text = mutant(seed, TEXTS)
        started = time.process_time()
        found = mistake(text, path)
        assert time.process_time() - started < LIMIT, f"seed {seed}"
        assert not list(tmp_path.iterdir()), "nothing is written"
        if found is not None:
            assert found.file == path, f"seed {seed}"
            assert 1 <= (found.line or 0) <= text.count("\n") + 1, f"seed {seed}: {found}"
            assert "\n" not in found.message, f"seed {seed}"
            assert len(found.message) < 1000, f"seed {seed}"


@pytest.mark.slow
def test_every_bad_spec_of_a_folder_is_reported(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "a.yaml").write_text("chain: [tahn]\n")
    (specs / "b.yaml").write_text("chain: [gelu]\n")
    (specs / "c.yaml").write_text("chain:\n  - softmax: {dim: 7}\n")
    out = tmp_path / "generated"
    for call in (
        lambda: builder.build([specs], out=out, backend="cpu"),
        lambda: builder.check([specs], out=out),
    ):
        with pytest.raises(UserError) as found:
            call()
        first, *rest = str(found.value).splitlines()
        assert first == "2 of 3 specs are wrong:"
        assert [line.split(" ")[0] for line in rest] == [
            f"{specs / 'a.yaml'}:1:",
            f"{specs / 'c.yaml'}:2:",
        ]
    assert not (out / "b").exists()


PRODUCT = "*".join(f"(x + {n})" for n in range(1, 301))
LIMITS = {
    "steps": ("chain:\n" + "  - relu\n" * 2000, "2000 steps; at most 256", 258),
    "factors": (f'chain: [{{expr: "{PRODUCT}"}}]\n', "299 calls and products; at most 256", 1),
}


@pytest.mark.parametrize("name", LIMITS)
def test_what_is_too_much_is_refused_soon(name: str) -> None:
    text, message, line = LIMITS[name]
    started = time.process_time()
    with pytest.raises(SpecError, match=message) as found:
        chain.derive(parse(text, "lengthy"))
    assert found.value.line == line
    assert time.process_time() - started < 60


def test_a_program_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse("chain:\n  - gelu\n  - mish\n  - swish\n", "lengthy")
    monkeypatch.setattr("fusegen.chain.segment.MAX_OPERATIONS", 120)
    remedy = (
        r"double_backward has \d+ operations, at most 120; set order: 1, or make several chains"
    )
    with pytest.raises(SpecError, match=remedy) as found:
        chain.derive(spec)
    assert found.value.line == 4
    monkeypatch.setattr("fusegen.chain.segment.MAX_OPERATIONS", 10)
    with pytest.raises(
        SpecError, match=r"forward has .* operations, at most 10; make several chains"
    ):
        chain.derive(spec)


def test_a_long_product_is_made_of_short_ones() -> None:
    text = "*".join(f"(x + {n})" for n in range(1, 41))
    programs = chain.derive(parse(f'chain: [{{expr: "{text}"}}]\n', "lengthy")).modes[0].programs
    assert len(str(programs[1])) < 20 * len(text), "no sum of forty products of forty factors"


def test_what_takes_long_says_what_it_is_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "PATIENCE", 0.05)
    said: list[str] = []
    with reported("slow", said.append):
        doing("counting")
        time.sleep(0.3)
    assert said[0].startswith("slow: counting (")
    count = len(said)
    doing("nothing that anybody hears")
    time.sleep(0.2)
    assert len(said) == count, "it ends with the block"


def test_deriving_says_what_it_is_doing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    for module in ("chain.segment", "render.files", "spec.steps", "lower.polynomials.of_formulas"):
        monkeypatch.setattr(f"fusegen.{module}.doing", told.append)
    (tmp_path / "two.yaml").write_text("chain: [tanh, gelu]\n")
    builder.check([tmp_path / "two.yaml"], out=tmp_path)
    assert {"reading step 2", "deriving backward", "lowering double_backward", "rendering"} <= {
        *told
    }
    assert "fitting a polynomial for gelu" in told
