"""Specs changed at random: each is an error with file and line, or a package, and nothing else happens."""

from __future__ import annotations

import ast
import importlib
import multiprocessing
import os
import re
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from clang_format import get_executable
from random_programs.build import build_together
from shared.mutants import CANARY, mutant
from shared.spec_mistakes import MISTAKES
from shared.vocabulary import vocabulary_texts

from fusegen import load
from fusegen.base.errors import SpecError
from fusegen.spec import parse
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify
from prove.records import ROOT
from prove.watch import Watch

FOLDERS = ("specs", "tests/chains", "tests/segments", "benchmarks/specs")
#: Seconds of the processor for one mutant, and seconds after which it hangs.
LIMIT, HANGS = 30.0, 120
#: One in so many packages is compiled and compared with float64, of those with a derivative.
COMPILED = 40
#: The files of a package.
FILES = {"__init__.py", "binding.cpp", "element.h", "form.h", "kernel.h", "kernel.cpp", "kernel.cu"}


class HangError(BaseException):
    """A mutant took too long; no `except Exception` may keep it."""


@dataclass
class Outcome:
    """What became of mutants.

    Args:
        errors: how many are an error with file and line.
        packages: the seeds of those that became a package.
        wrong: what happened that may not, by seed.
        messages: how often each kind of error occurred: its words, without what it quotes.
        slowest: the most seconds of the processor that one took.
    """

    errors: int = 0
    packages: list[int] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    def add(self, other: Outcome) -> None:
        """Add what became of others."""
        self.errors += other.errors
        self.packages += other.packages
        self.wrong |= other.wrong
        self.messages += other.messages
        self.slowest = max(self.slowest, other.slowest)


def shipped_texts() -> list[str]:
    """Return the specs of the repository that are right."""
    return [p.read_text() for f in FOLDERS for p in sorted((ROOT / f).glob("*.yaml"))]


def every_text() -> list[str]:
    """Return the specs of the repository, a spec of each op, and some of the mistakes of the tests."""
    mistakes = [text for text, _, _ in MISTAKES]
    return [*shipped_texts() * 4, *vocabulary_texts().values(), *mistakes[::6]]


def watch() -> Watch:
    """Return the watch of this process, after what is done once in it has been done."""
    importlib.import_module("sympy.physics.units")  # its module parses names of units with `eval`
    path = ROOT / "specs" / "scale_softmax.yaml"
    pipeline.render_package(path)
    return Watch((str(get_executable("clang-format")),))


def attempt(text: str, folder: Path, watched: Watch) -> SpecError | None:
    """Make a package of a spec's text in memory, and return what is wrong with the spec, or None.

    Args:
        text: the spec.
        folder: an empty folder, which holds nothing but the spec afterwards.
        watched: sees what else happens.

    Raises:
        AssertionError: something happened that may not.
        Exception: it ended in a traceback.
    """
    path = folder / "mutant.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    started = time.process_time()
    error = None
    with watched.on() as seen:
        try:
            files = pipeline.render_package(path).files
        except SpecError as raised:
            error = raised
    assert not seen, seen
    assert time.process_time() - started < LIMIT, "it takes too long"
    assert [p.name for p in folder.iterdir()] == [path.name], "a file is written"
    if error is None:
        assert set(files) <= FILES, set(files)
        files["__init__.py"] = _without_docstring(files["__init__.py"])
        assert not any(CANARY in content for content in files.values()), "an attack is in the code"
        return None
    assert error.file == path, error
    lines = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", text))  # as YAML counts them
    assert 1 <= (error.line or 0) <= lines, error
    assert "\n" not in error.message, error.message
    assert len(error.message) < 1000, error.message
    return error


def _without_docstring(text: str) -> str:
    """Return a module's code without its docstring, which quotes the spec's description."""
    module = ast.parse(text)
    if ast.get_docstring(module) is not None:
        del module.body[0]
    return ast.unparse(module)


def run(seeds: Sequence[int], folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what became of the mutants of some seeds.

    Args:
        seeds: the seeds.
        folder: an empty folder.
        say: where to say how far it is.
    """
    parts = [seeds[start : start + 50] for start in range(0, len(seeds), 50)]
    outcome = Outcome()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        for done in pool.map(_part, parts, [folder / f"part_{n}" for n in range(len(parts))]):
            outcome.add(done)
            count = outcome.errors + len(outcome.packages)
            say(f"{count} of {len(seeds)}: {len(outcome.wrong)} wrong")
            for seed, what in done.wrong.items():
                say(f"seed {seed}: {what}")
    texts = every_text()
    derivable = [s for s in outcome.packages if parse(mutant(s, texts), "mutant").order]
    compiled = derivable[::COMPILED]
    outcome.wrong |= _compiled(compiled, folder / "compiled")
    return {
        "seed": seeds[0],
        "count": len(seeds),
        "errors": outcome.errors,
        "packages": len(outcome.packages),
        "compiled": len(compiled),
        "slowest": round(outcome.slowest, 1),
        "messages": dict(outcome.messages.most_common()),
        "wrong": {str(seed): what for seed, what in outcome.wrong.items()},
    }


def _part(seeds: Sequence[int], folder: Path) -> Outcome:
    """Return what became of some mutants, in a process of its own."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    os.chdir(folder)  # where an attack would leave something
    signal.signal(signal.SIGALRM, _hangs)
    texts, watched, outcome = every_text(), watch(), Outcome()
    for seed in seeds:
        text = mutant(seed, texts)
        place = folder / str(seed)
        place.mkdir()
        started = time.process_time()
        try:
            signal.alarm(HANGS)
            error = attempt(text, place, watched)
            if error is None:
                outcome.packages.append(seed)
            else:
                outcome.errors += 1
                outcome.messages[_kind(error.message)] += 1
        except (Exception, HangError):
            outcome.wrong[seed] = f"{traceback.format_exc()[-1500:]}\n{text}"
        finally:
            signal.alarm(0)
        outcome.slowest = max(outcome.slowest, time.process_time() - started)
    if left := [p.name for p in folder.iterdir() if not p.name.isdigit()]:
        outcome.wrong[seeds[0]] = f"written: {left}"
    return outcome


def _hangs(*_: object) -> None:
    raise HangError(f"nothing after {HANGS} s")


def _kind(message: str) -> str:
    """Return an error's words without names, numbers and quotations."""
    words = [w for w in message.split(";", maxsplit=1)[0].split() if w.isalpha() and w.islower()]
    return " ".join(words)[:80]


def _compiled(seeds: Sequence[int], folder: Path) -> dict[int, str]:
    """Compile the packages of some mutants, compare those of one chain, and return which are wrong."""
    os.environ["FUSEGEN_NATIVE"] = "1"
    texts = every_text()
    named = {f"mutant_{seed}": mutant(seed, texts) for seed in seeds}
    if not named:
        return {}
    out = build_together(folder, named, together=10, dtypes=("float64", "float32"))
    wrong = {}
    for seed, name in zip(seeds, named, strict=True):
        try:
            derived = pipeline.derive_all(folder / "specs" / f"{name}.yaml")
            package = load(name, out)
            if len(derived.pieces) > 1:  # which have no `apply`
                continue
            (chain,) = derived.fused
            for training in (False, True) if chain.moded else (False,):
                case = verify.make_case(chain, chain.example_shape(5, 33), training=training)
                for dtype in (torch.float64, torch.float32):
                    off = [
                        str(e) for e in verify.compare(package, chain, case, dtype) if not e.within
                    ]
                    assert not off, off
        except Exception:
            wrong[seed] = f"{traceback.format_exc()[-1500:]}\n{named[name]}"
    return wrong
