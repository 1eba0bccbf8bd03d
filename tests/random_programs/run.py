"""Makes programs from seeds, builds them, and holds them against torch."""

from __future__ import annotations

import math
import multiprocessing
import shutil
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fusegen import load
from fusegen.base.errors import SpecError
from fusegen.toolchain import pipeline
from random_programs.build import COMPUTED, Dtypes, compile_together, in_turn, write_package
from random_programs.check import Failure, check
from random_programs.draft import CrashError
from random_programs.generate import Generator
from random_programs.generate_named import NamedGenerator
from random_programs.program import Program


@dataclass
class Outcome:
    """What became of some seeds.

    Args:
        programs: those that were made, by name.
        failures: what was wrong with them.
        refusals: how often the language refused a step, by message.
        calls: how often a package was called and compared.
        results: how many tensors were compared.
    """

    programs: dict[str, Program] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    results: int = 0

    def add(self, other: Outcome) -> None:
        """Add what became of other seeds."""
        self.programs |= other.programs
        self.failures += other.failures
        self.refusals += other.refusals
        self.calls += other.calls
        self.results += other.results


def generate(seeds: Sequence[int], outcome: Outcome, named: bool = False) -> dict[str, Program]:
    """Return a program for each seed, or one of named values; one that ends in a traceback is a failure."""
    made = {}
    for seed in seeds:
        name = f"{'named' if named else 'random'}_{seed}"
        generator = NamedGenerator if named else Generator
        try:
            made[name] = generator(name, seed, outcome.refusals).program()
        except CrashError as error:
            outcome.programs[name] = error.program
            outcome.failures.append(Failure(name, "derive", str(error), float("inf")))
    outcome.programs |= made
    return made


def run(
    seeds: Sequence[int],
    *,
    together: int = 10,
    processes: int = 1,
    seconds: float = math.inf,
    quick: bool = False,
    named: bool = False,
    keep: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    note: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Return what became of the programs of some seeds.

    Args:
        seeds: the seeds.
        together: how many programs share a library.
        processes: how many libraries are built and checked at the same time.
        seconds: after how many no other library begins.
        quick: compile with -O1, and each for float64 and one other dtype: in half of the time.
        named: draw programs of named values.
        keep: the folder of what is built; by default one that is removed.
        say: where to say how far it is.
        note: called with what is known after each library.
    """
    outcome, ends = Outcome(), time.monotonic() + seconds
    parts = [seeds[start : start + together] for start in range(0, len(seeds), together)]

    def in_time(part: Sequence[int]) -> Outcome:
        return _apart(part, keep, quick, named) if time.monotonic() < ends else Outcome()

    with ThreadPoolExecutor(processes) as pool:
        for done in pool.map(in_time, parts):
            outcome.add(done)
            for failure in done.failures:
                say(str(failure)[:400])
            note(outcome)
            say(f"{len(outcome.programs)} of {len(seeds)}: {len(outcome.failures)} failures")
    return outcome


def _apart(seeds: Sequence[int], keep: Path | None, quick: bool, named: bool) -> Outcome:
    """Return what became of some seeds, in a process of their own: a package may end it."""
    context = multiprocessing.get_context("spawn")  # torch has threads, which a fork lacks
    try:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            return process.submit(_part, seeds, keep, quick, named).result()
    except BrokenProcessPool:
        outcome = Outcome()
        if len(seeds) > 1:  # which of them it was shows alone
            for seed in seeds:
                outcome.add(_apart([seed], keep, quick, named))
            return outcome
        for name in generate(seeds, outcome, named):
            outcome.failures.append(Failure(name, "call", "the process ended", float("inf")))
        return outcome


def _part(seeds: Sequence[int], keep: Path | None, quick: bool, named: bool) -> Outcome:
    """Return what became of the programs of seeds that share a library."""
    torch.set_num_threads(2)
    warnings.filterwarnings("ignore", message="Using a target size")
    outcome = Outcome()
    folder = keep / str(seeds[0]) if keep else Path(tempfile.mkdtemp(prefix="random_"))
    try:
        check_all(generate(seeds, outcome, named), folder, outcome, quick)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    return outcome


def check_all(
    programs: dict[str, Program], folder: Path, outcome: Outcome, quick: bool = False
) -> None:
    """Build programs together, and check each."""
    good = {}
    dtypes = dict.fromkeys(programs, COMPUTED)
    if quick:
        dtypes = in_turn(programs)
        # What is new in programs of named values is in their formulas, which float64 shows.
        few = [n for n, p in programs.items() if p.tensors is not None and p.seed % 4]
        dtypes |= dict.fromkeys(few, ("float64",))
    for name, program in programs.items():
        path = folder / "specs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(program.text)
        try:
            write_package(path, folder / "generated")
            good[name] = program
        except SpecError as error:  # what holds for order 1 need not be derivable twice
            outcome.refusals[str(error).split(": ", 1)[-1][:90]] += 1
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            outcome.failures.append(Failure(name, "render", what, float("inf")))
    out = folder / "generated"
    for name, program in _compiled(good, out, outcome, dtypes, quick).items():
        spec = folder / "specs" / f"{name}.yaml"
        chain = pipeline.derive(spec) if program.tensors is None else None
        given = [getattr(torch, dtype) for dtype in dtypes[name]]
        report = check(program, chain, load(name, out), given)
        outcome.failures += report.failures
        outcome.calls += report.calls
        outcome.results += report.results


def _compiled(
    programs: dict[str, Program], out: Path, outcome: Outcome, dtypes: Dtypes, quick: bool
) -> dict[str, Program]:
    """Compile packages together, and return the programs of those that compile."""
    if not programs:
        return {}
    try:
        compile_together(list(programs), out, len(programs), "-O1" if quick else "-O3", dtypes)
        return programs
    except AssertionError as error:
        if len(programs) == 1:
            name = next(iter(programs))
            outcome.failures.append(Failure(name, "compile", str(error), float("inf")))
            return {}
    alone = [_compiled({n: p}, out, outcome, dtypes, quick) for n, p in programs.items()]
    good = {n: p for found in alone for n, p in found.items()}
    return _compiled(good, out, outcome, dtypes, quick)


def failing(programs: Mapping[str, Program], quick: bool = False) -> set[str]:
    """Return the names of those programs that are wrong or crash.

    They are called in a process of their own: they may end it, and operators are registered once.

    Args:
        programs: the programs, by name.
        quick: as for `run`.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as process:
            return process.submit(_failing, dict(programs), quick).result()
    except BrokenProcessPool:
        if len(programs) == 1:
            return set(programs)
        return {name for one, p in programs.items() for name in failing({one: p}, quick)}


def _failing(programs: dict[str, Program], quick: bool) -> set[str]:
    torch.set_num_threads(2)
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="random_") as folder:
        check_all(programs, Path(folder), outcome, quick)
    return {failure.program for failure in outcome.failures}
