"""Whatever a spec says, the outcome is an error with file and line or a package, in bounded time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prove.bad_specs import attempt, every_text, watch
from prove.watch import Watch
from shared.mutants import CANARY, mutant

from fusegen import chain
from fusegen.base import activity
from fusegen.base.activity import doing, reported
from fusegen.base.errors import SpecError, UserError
from fusegen.spec import parse
from fusegen.toolchain import builder

#: Mutants of the suite, in groups that are a test each; `make prove` tries thousands.
GROUPS, EACH = 10, 15


@pytest.fixture(scope="session")
def watched() -> Watch:
    return watch()


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_mutant_is_an_error_with_file_and_line_or_a_package(
    group: int, tmp_path: Path, watched: Watch
) -> None:
    texts = every_text()
    for seed in range(group * EACH, (group + 1) * EACH):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            attempt(mutant(seed, texts), folder, watched)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_attacks_are_seen(tmp_path: Path, watched: Watch) -> None:
    """What the tests of mutants rely on: a watch sees what a spec's code would do."""
    text = f"open({str(tmp_path / 'written')!r}, 'w').close()"
    with watched.on() as seen:
        exec(text)  # noqa: S102
    assert [event.split()[0] for event in seen] == ["exec", "open"]
    with watched.on() as seen:
        os.system("true")
        subprocess.run(["true"], check=True)
        os.rename(tmp_path / "written", tmp_path / "moved")
    assert [event.split()[0] for event in seen] == ["os.system", "subprocess.Popen", "os.rename"]
    open(tmp_path / "unseen", "w").close()
    assert len(seen) == 3, "a watch ends with its block"


def test_what_a_mutant_may_not_do_is_a_fault(
    tmp_path: Path, watched: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `attempt` is to find: a traceback, a file, an error without a line, an attack in the code."""

    def tried(render: Callable[[Path], Any]) -> None:
        monkeypatch.setattr("fusegen.toolchain.pipeline.render_package", render)
        attempt("chain: [gelu]\n", tmp_path, watched)

    def raising(error: Exception) -> Callable[[Path], Any]:
        def render(_: Path) -> Any:
            raise error

        return render

    def package(**files: str) -> Callable[[Path], Any]:
        return lambda _: SimpleNamespace(files=files)

    def leaving(path: Path) -> Any:
        path.with_name("left").write_text("")
        raise SpecError("a mistake", path, 1)

    with pytest.raises(ValueError, match="a traceback"):
        tried(raising(ValueError("a traceback")))
    path = tmp_path / "mutant.yaml"
    tried(raising(SpecError("a mistake", path, 1)))
    for error in (
        SpecError("no line", path),
        SpecError("beyond the end", path, 3),
        SpecError("another file", tmp_path, 1),
        SpecError("two\nlines", path, 1),
    ):
        with pytest.raises(AssertionError):
            tried(raising(error))
    with pytest.raises(AssertionError, match="attack"):
        tried(package(**{"__init__.py": "", "kernel.cpp": f"int {CANARY};"}))
    with pytest.raises(AssertionError, match=r"other\.py"):
        tried(package(**{"__init__.py": "", "other.py": ""}))
    with pytest.raises(AssertionError, match="open"):
        tried(leaving)


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
    monkeypatch.setattr("fusegen.chain.mode.MAX_OPERATIONS", 100)
    remedy = (
        r"double_backward has \d+ operations, at most 100; set order: 1, or make several chains"
    )
    with pytest.raises(SpecError, match=remedy) as found:
        chain.derive(spec)
    assert found.value.line == 4
    monkeypatch.setattr("fusegen.chain.mode.MAX_OPERATIONS", 10)
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
    for module in ("chain.mode", "render.files", "spec.steps", "lower.polynomials.of_formulas"):
        monkeypatch.setattr(f"fusegen.{module}.doing", told.append)
    (tmp_path / "two.yaml").write_text("chain: [tanh, gelu]\n")
    builder.check([tmp_path / "two.yaml"], out=tmp_path)
    assert {"reading step 2", "deriving backward", "lowering double_backward", "rendering"} <= {
        *told
    }
    assert "fitting a polynomial for gelu" in told
