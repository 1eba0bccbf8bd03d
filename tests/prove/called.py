"""Calls packages that were compiled with a sanitizer, in a process that may end.

python -m prove.called FOLDER

The folder has the specs of forms, the random programs and the packages that `sanitizers.py` puts there. Each
call is a line of JSON before it begins, and one after it that says what was wrong.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from random_programs.check import check
from random_programs.program import Program

import fusegen
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify
from prove.guarded import guard

#: Sizes at and about which loops change: vectors, blocks of columns, tiles; and work for several threads.
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 64, 65, 127, 129, 1023, 1025, 2049)
#: Elements of a call, at most.
MOST = 150_000
#: Calls of each package of a form.
CALLS = 5


def shapes(chain: Chain, rng: random.Random) -> Iterator[tuple[int, ...]]:
    """Give the shape of each call of a form; the last one has work for several threads."""
    groups = (s.attributes[s.op.groups] for s in chain.spec.steps if s.op and s.op.groups)
    # Of groups of two numbers, nearly equal, rounding decides the gradient.
    least = 4 * math.lcm(*found) if (found := [n for n in groups if isinstance(n, int)]) else 1
    for number in range(CALLS):
        shape = [MOST + 1]
        while math.prod(shape) > MOST:
            shape = [rng.choice(SIZES) for _ in range(chain.layout.rank or 2)]
            shape[1] = -(-shape[1] // least) * least
            if chain.layout.halved or chain.parts > 1:
                shape[chain.layout.halved or -1] *= 2
        if number == CALLS - 1:
            shape[0] *= MOST // math.prod(shape)
        yield tuple(shape)


def call_form(name: str, dtypes: list[str], folder: Path, rng: random.Random, slack: float) -> None:
    """Call a package of benchmarks/forms; errors may be `slack` times the bound."""
    chain = pipeline.derive(folder / f"{name}.yaml")
    package = guard(fusegen.load(name, folder / "generated"), rng)
    for shape in shapes(chain, rng):
        for training in (False, True) if len(chain.modes) == 2 else (False,):
            dtype = getattr(torch, rng.choice(dtypes))
            seed = rng.randrange(10**6)
            what = f"{name} {shape} {dtype}{' training' if training else ''}, seed {seed}"
            _say({"package": name, "call": what})
            case = verify.make_case(chain, shape, training=training, seed=seed)
            errors = verify.compare(package, chain, case, dtype)
            wrong = [f"{what}: {e}" for e in errors if not e.units <= slack * e.bound]
            _say({"package": name, "wrong": wrong})


def call_program(path: Path, dtypes: list[str], folder: Path, rng: random.Random) -> None:
    """Call a random program in all of its cases."""
    name = path.stem
    program, chain = Program.read(path), pipeline.derive(path)
    package = guard(fusegen.load(name, folder / "generated"), rng)
    _say({"package": name, "call": name})
    report = check(program, chain, package, [getattr(torch, d) for d in dtypes])
    for _ in range(report.calls - 1):
        _say({"package": name, "wrong": []})
    _say({"package": name, "wrong": [str(failure) for failure in report.failures]})


def _say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    """Call everything that the task names."""
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    rng = random.Random(task["seed"])
    for name, dtypes in task["dtypes"].items():
        path = folder / "programs" / f"{name}.yaml"
        if path.exists():
            call_program(path, dtypes, folder, rng)
        else:
            call_form(name, dtypes, folder, rng, task["slack"])


if __name__ == "__main__":
    main()
