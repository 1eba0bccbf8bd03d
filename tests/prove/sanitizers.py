"""CPU kernels compiled with sanitizers and called with guarded tensors; the pool and the kernels under TSan.

Each spec of benchmarks/forms, with dtypes drawn at random, and random programs are compiled with
AddressSanitizer and UndefinedBehaviorSanitizer, a third for each instruction set. A process of its own calls
them (`called.py`). New memory is NaN there, so that an element that is never written is a wrong value. In
another process the kernels run on threads that ThreadSanitizer sees (`parallel_for.cpp`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from random_programs.build import EVERY, compile_together, write_package
from random_programs.run import Outcome, generate

from fusegen.base.errors import SpecError
from fusegen.base.stamp import features
from fusegen.toolchain.compilers import find_compilers
from prove.records import ROOT

FORMS = ROOT / "benchmarks" / "forms"
#: What the compiler is asked for. The first error ends the process.
FLAGS = {
    "address": "-fsanitize=address,undefined -fno-sanitize-recover=undefined -g1",
    "thread": "-fsanitize=thread -g1",
}
#: New memory is filled with 0xff, which is NaN in every dtype; of a result of many MiB too.
OPTIONS = {
    "address": {
        "ASAN_OPTIONS": "detect_leaks=0:malloc_fill_byte=255:max_malloc_fill_size=1073741824:exitcode=9",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    },
    # A process that forks has no more threads than one.
    "thread": {"TSAN_OPTIONS": "exitcode=9:die_after_fork=0:ignore_noninstrumented_modules=1"},
}
#: How many times its bound an error may be. Under ThreadSanitizer no loop is a vector loop: a sum of a
#: thousand numbers is then added one by one.
SLACK = {"address": 1, "thread": 16}
#: What a sanitizer's message begins with.
FOUND = re.compile(
    r"(ERROR: AddressSanitizer.*|WARNING: ThreadSanitizer.*|\S+: runtime error: .*|Fatal .*)"
)


def run(
    seeds: Sequence[int], folder: Path, processes: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return a record of every part.

    Args:
        seeds: of the random programs; the first draws dtypes, shapes and layouts too.
        folder: where packages are built.
        processes: how many parts at once.
        say: where to say how far it is.
    """
    isas, rows = _isas(), []
    parts = [
        ("address", isa, number, len(isas), seeds[number :: len(isas)], seeds[0], folder)
        for number, isa in enumerate(isas)
    ]
    parts.append(("thread", isas[-1], 0, 1, (), seeds[0], folder))
    context = multiprocessing.get_context("spawn")  # each part has an environment of its own
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        done = [pool.submit(_watch, *part) for part in parts] + [pool.submit(_pool, folder)]
        for each in done:
            rows.append(each.result())
            say(_said(rows[-1]))
    wrong = [line for row in rows for line in row["wrong"]]
    return {"seed": seeds[0], "count": len(seeds), "rows": rows, "wrong": wrong}


def _said(row: dict[str, Any]) -> str:
    return f"{row['part']}: {row['packages']} packages, {row['calls']} calls, {len(row['wrong'])} wrong"


def _isas() -> tuple[str, ...]:
    """Return the instruction sets that this processor has."""
    present = features()
    return (
        "portable",
        *(["avx2"] if "avx2" in present else []),
        *(["avx512"] if "avx512f" in present else []),
    )


def _watch(
    sanitizer: str,
    isa: str,
    number: int,
    of: int,
    seeds: Sequence[int],
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """Build a part of the packages with a sanitizer, and call them in a process of their own."""
    here = folder / f"{sanitizer}_{isa}"
    out, programs = here / "generated", here / "programs"
    programs.mkdir(parents=True)
    rng = random.Random(seed)
    dtypes: dict[str, tuple[str, ...]] = {}
    for n, spec in enumerate(sorted(FORMS.glob("*.yaml"))):
        drawn = rng.sample(EVERY, 2)
        chosen = tuple(d for d in EVERY if d in drawn)
        if n % of == number:
            if sanitizer == "thread":  # each dtype has the same tasks
                chosen = ("float32",)
            text = re.sub(
                r"^dtypes: .*\n", f"dtypes: [{', '.join(chosen)}]\n", spec.read_text(), flags=re.M
            )
            (here / spec.name).write_text(text)
            write_package(here / spec.name, out)
            dtypes[spec.stem] = chosen
    for name, program in generate(seeds, Outcome()).items():
        program.save(programs / f"{name}.yaml")
        try:
            write_package(programs / f"{name}.yaml", out)
        except SpecError:  # what holds for order 1 need not be derivable twice
            (programs / f"{name}.yaml").unlink()
            continue
        dtypes[name] = ("float64", *rng.sample(("float32", "bfloat16", "float16"), 1))
    with _environment(CXX=str(_compiler(here, sanitizer)), FUSEGEN_NATIVE="1", FUSEGEN_CPU=isa):
        compile_together(list(dtypes), out, 8, "-O1", dtypes)
    preloaded = [_library(sanitizer)]
    if sanitizer == "thread":
        preloaded.append(_threads(here))
    with _environment(FUSEGEN_NATIVE=None, FUSEGEN_CPU=None):
        return _call(
            sanitizer,
            isa,
            here,
            preloaded,
            {"seed": seed, "dtypes": dtypes, "slack": SLACK[sanitizer]},
        )


def _call(
    sanitizer: str, isa: str, here: Path, preloaded: Sequence[Path], task: dict[str, Any]
) -> dict[str, Any]:
    (here / "task.json").write_text(json.dumps(task))
    environment = {
        **os.environ,
        **OPTIONS[sanitizer],
        "LD_PRELOAD": ":".join(map(str, preloaded)),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "PYTHONMALLOC": "malloc",  # each of Python's objects too is an allocation
        "FUSEGEN_POOL_MB": "0",  # memory that is given back is not used again unseen
        "OMP_NUM_THREADS": "4" if sanitizer == "thread" else "2",
    }
    # gcc 12's ThreadSanitizer knows no addresses that are drawn from so many bits.
    still = ["setarch", "-R"] if sanitizer == "thread" and shutil.which("setarch") else []
    command = [*still, sys.executable, "-X", "faulthandler", "-m", "prove.called", str(here)]
    said, errors = here / "stdout.txt", here / "stderr.txt"
    with said.open("w") as out, errors.open("w") as err:
        done = subprocess.run(command, env=environment, stdout=out, stderr=err, check=False)
    lines = [json.loads(line) for line in said.read_text().splitlines() if line.startswith("{")]
    wrong = [f"{line['package']}: {text}" for line in lines for text in line.get("wrong", ())]
    calls = Counter(line["package"] for line in lines if "wrong" in line)
    found = FOUND.findall(errors.read_text())
    if done.returncode or found:
        last = lines[-1]["call"] if lines and "call" in lines[-1] else "no call"
        shown = "; ".join(dict.fromkeys(found)) or errors.read_text().strip()[-600:]
        wrong.append(f"exit {done.returncode} in {last}: {shown}")
    return {
        "part": f"{sanitizer}, {isa}",
        "packages": len(task["dtypes"]),
        "calls": calls.total(),
        "wrong": wrong,
    }


def _pool(folder: Path) -> dict[str, Any]:
    """Run the threads that take from the pool and give back, and fork, under ThreadSanitizer."""
    program = folder / "pool_threads"
    command = [str(find_compilers().cxx), "-std=c++17", "-O1", *FLAGS["thread"].split(), "-pthread"]
    include, source = ROOT / "templates" / "include", ROOT / "tests" / "pool_threads.cpp"
    subprocess.run([*command, f"-I{include}", str(source), "-o", str(program)], check=True)
    still = ["setarch", "-R"] if shutil.which("setarch") else []
    environment = {**os.environ, **OPTIONS["thread"]}
    done = subprocess.run(
        [*still, str(program)], env=environment, capture_output=True, text=True, check=False
    )
    wrong = FOUND.findall(done.stderr) + ([done.stdout.strip()] if done.returncode else [])
    return {"part": "thread, the pool and 200 forks", "packages": 0, "calls": 1, "wrong": wrong}


def _compiler(folder: Path, sanitizer: str) -> Path:
    """Write a compiler that adds the sanitizer's flags to each command."""
    script = folder / "sanitizing-g++"
    script.write_text(f'#!/bin/sh\nexec {find_compilers().cxx} "$@" {FLAGS[sanitizer]}\n')
    script.chmod(0o755)
    return script


def _library(sanitizer: str) -> Path:
    name = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
    command = [str(find_compilers().cxx), f"-print-file-name={name}"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def _threads(folder: Path) -> Path:
    """Compile what gives kernels threads that ThreadSanitizer sees."""
    library = folder / "parallel_for.so"
    command = [str(find_compilers().cxx), "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread"]
    source = ROOT / "tests" / "prove" / "parallel_for.cpp"
    subprocess.run([*command, "-fsanitize=thread", str(source), "-o", str(library)], check=True)
    return library


@contextmanager
def _environment(**variables: str | None) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
