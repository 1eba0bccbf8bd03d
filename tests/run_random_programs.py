"""Holds random programs against torch, and writes what became of them to a record.

python tests/run_random_programs.py --seed 1000 --count 300 --record record.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from prove.ending import end_after
from prove.records import origin
from random_programs.run import Outcome, failing, run
from random_programs.shrink import shrink


def main() -> int:
    """Run the command line; 1 where a program is wrong or crashes, or where none was called."""
    options = _options()
    end_after(options.at_most)
    if options.record:
        options.record.parent.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    seeds = range(options.seed, options.seed + options.count)

    def note(outcome: Outcome) -> None:
        """Write what is known so far: the run may be ended."""
        if options.record:
            record = _record(outcome, options, time.time() - begin)
            options.record.write_text(json.dumps(record, indent=1) + "\n")

    outcome = run(
        seeds,
        together=options.together,
        processes=options.processes,
        seconds=options.seconds,
        quick=options.quick,
        named=options.named,
        keep=options.keep,
        say=_say,
        note=note,
    )
    failed = {failure.program for failure in outcome.failures}
    if options.shrink:
        for name in sorted(failed):
            small = shrink(outcome.programs[name], partial(failing, quick=options.quick))
            small.save(options.shrink / f"{name}.yaml")
            _say(f"{name} shrunk to\n{small.text}")
    _say(f"{len(outcome.programs)} programs, {len(failed)} failed")
    return 1 if failed or not outcome.results else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, required=True, help="the first seed")
    parser.add_argument("--count", type=int, default=300, help="how many programs")
    parser.add_argument("--record", type=Path, help="the JSON file to write")
    parser.add_argument("--together", type=int, default=10, help="programs in one library")
    parser.add_argument("--processes", type=int, default=1, help="libraries at the same time")
    parser.add_argument("--seconds", type=float, default=math.inf, help="when no other one begins")
    parser.add_argument("--at-most", type=float, help="seconds after which it ends with an error")
    parser.add_argument("--quick", action="store_true", help="-O1, and one of two dtypes in turn")
    parser.add_argument("--named", action="store_true", help="programs of named values")
    parser.add_argument("--keep", type=Path, help="a folder in which what is built stays")
    parser.add_argument("--shrink", type=Path, help="a folder for failing programs made smaller")
    return parser.parse_args()


def _record(outcome: Outcome, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    steps: dict[str, int] = {}
    for program in outcome.programs.values():
        for step in program.document["chain"]:
            word = step if isinstance(step, str) else next(iter(step))
            steps[word] = steps.get(word, 0) + 1
    return {
        "seed": options.seed,
        "count": options.count,
        "programs": len(outcome.programs),
        "failed": sorted({failure.program for failure in outcome.failures}),
        "failures": [str(failure) for failure in outcome.failures],
        "calls": outcome.calls,
        "results": outcome.results,
        "steps": dict(sorted(steps.items())),
        "dtypes": ["float64", "float32", "bfloat16"],
        "quick": options.quick,
        "named": options.named,
        "refused steps": dict(outcome.refusals.most_common()),
        **origin(seconds),
    }


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
