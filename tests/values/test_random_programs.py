"""Random programs against torch's own functions in float64, and those that once were wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT, asked_for, derive, once, shared
from random_programs.build import build_together, in_turn
from random_programs.check import check
from random_programs.generate import Generator
from random_programs.generate_named import NamedGenerator
from random_programs.program import Program

from fusegen import load

SEEDS = range(20)
#: Programs that once were wrong, made as small as they still were.
FOUND = sorted((ROOT / "tests" / "random_programs" / "found").glob("*.yaml"))
DRAWN = [*(f"random_{seed}" for seed in SEEDS), *(f"named_{seed}" for seed in range(8))]
PROGRAMS = [*DRAWN, *(path.stem for path in FOUND)]
#: What was once wrong was so in the formulas, or in the precision of float32, but for one: g++ made wrong
#: vectors of bfloat16 of it, at -O3.
WRONG_VECTORS = "second_derivative_of_selected_numbers"
DTYPES = {
    **in_turn(DRAWN),
    **dict.fromkeys(PROGRAMS[len(DRAWN) :], ("float64", "float32")),
    WRONG_VECTORS: ("float64", "bfloat16"),
}
#: Two of three random programs are compiled with -O3, as users' packages are. -O1 takes half of the time.
OPTIMIZED = {f"random_{seed}" for seed in SEEDS if seed % 3} | {WRONG_VECTORS}


def program_of(name: str) -> Program:
    if name.startswith("random_"):
        return Generator(name, int(name.removeprefix("random_"))).program()
    if name.startswith("named_"):
        return NamedGenerator(name, int(name.removeprefix("named_"))).program()
    return Program.read(ROOT / "tests" / "random_programs" / "found" / f"{name}.yaml")


@pytest.fixture(scope="session")
def random_packages(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the programs that are asked for, built once for all workers: see `folder_of`."""
    folder, asked = shared(tmp_path_factory) / "random", asked_for(request, set(PROGRAMS))

    def build() -> None:
        for optimize, few in (("-O3", True), ("-O1", False)):
            texts = {n: program_of(n).text for n in sorted(asked) if (n in OPTIMIZED) is few}
            build_together(folder / optimize, texts, 24, optimize, DTYPES)

    once(tmp_path_factory, "random", build)
    return folder


def folder_of(name: str, packages: Path) -> Path:
    """Return the folder of a program's spec and package."""
    return packages / ("-O3" if name in OPTIMIZED else "-O1")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_random_program_is_right(name: str, random_packages: Path) -> None:
    folder = folder_of(name, random_packages)
    program = program_of(name)
    chain = derive(folder / "specs" / f"{name}.yaml") if program.tensors is None else None
    dtypes = [getattr(torch, dtype) for dtype in DTYPES[name]]
    report = check(program, chain, load(name, folder / "generated"), dtypes)
    assert report.results
    assert not report.failures, "\n".join(str(failure) for failure in report.failures)
