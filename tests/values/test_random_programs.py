"""Random programs against torch's own functions in float64, and those that once were wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT, derive, once, shared
from random_programs.build import COMPUTED, build_together, in_turn
from random_programs.check import check
from random_programs.generate import Generator
from random_programs.program import Program

from fusegen import load

SEEDS = range(20)
#: Programs that once were wrong, made as small as they still were.
FOUND = sorted((ROOT / "tests" / "random_programs" / "found").glob("*.yaml"))
PROGRAMS = [*(f"random_{seed}" for seed in SEEDS), *(path.stem for path in FOUND)]
#: What was wrong once may have been so in one dtype alone.
DTYPES = in_turn(PROGRAMS[: len(SEEDS)]) | dict.fromkeys(PROGRAMS[len(SEEDS) :], COMPUTED)


def program_of(name: str) -> Program:
    if name.startswith("random_"):
        return Generator(name, int(name.removeprefix("random_"))).program()
    return Program.read(ROOT / "tests" / "random_programs" / "found" / f"{name}.yaml")


@pytest.fixture(scope="session")
def random_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of these programs, built once for all workers."""
    folder = shared(tmp_path_factory) / "random"

    def build() -> None:
        texts = {name: program_of(name).text for name in PROGRAMS}
        build_together(folder, texts, optimize="-O3", dtypes=DTYPES)

    once(tmp_path_factory, "random", build)
    return folder


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_a_random_program_is_right(name: str, random_packages: Path) -> None:
    chain = derive(random_packages / "specs" / f"{name}.yaml")
    dtypes = [getattr(torch, dtype) for dtype in DTYPES[name]]
    report = check(program_of(name), chain, load(name, random_packages / "generated"), dtypes)
    assert report.results
    assert not report.failures, "\n".join(str(failure) for failure in report.failures)
