"""The command line: each measure writes a record, and `page` puts the records into docs/evidence.md.

PYTHONPATH=tests python -m prove inputs --record tests/prove/records/inputs_cpu.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prove import records
from prove.ending import end_after, is_empty


def main() -> int:
    """Run one measure; 1 if something in it is wrong, or if it measures nothing."""
    options = _options()
    end_after(options.at_most)
    begin = time.time()
    with tempfile.TemporaryDirectory(prefix="prove_") as folder:
        record, wrong = MEASURES[options.measure](options, Path(folder))
    # A record that is attempted again stays of the commit at which it began.
    record = records.origin(time.time() - begin) | record
    if options.record:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        records.write(options.record, record)
    empty = is_empty(record) and options.measure not in AGAIN
    what = "nothing was measured" if empty else f"{wrong} wrong"
    print(f"{options.measure}: {what}, {record['seconds']} s", flush=True)
    return 1 if wrong or empty else 0


def _inputs(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    from prove import every_input, inputs

    count = int(options.count)
    before = json.loads(options.before.read_text())["rows"] if options.before else None
    rows = inputs.run(
        folder, count, options.device, options.processes, options.seconds, _say, before
    )
    wrong = [row for row in rows if not every_input.accounted(row)]
    return {"device": _device(options.device), "count": count, "rows": rows}, len(wrong)


def _specs(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    from prove import bad_specs

    seeds = range(options.seed, options.seed + int(options.count))
    record = bad_specs.run(seeds, folder, _say)
    return record, len(record["wrong"])


def _again(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    """Attempt the changed specs of a record once more that were wrong, and note which are mended since."""
    from prove import bad_specs

    record = json.loads(options.record.read_text())
    seeds = [int(seed) for seed in record["wrong"]]
    found = bad_specs.run(seeds, folder, _say)
    mended = [seed for seed in seeds if str(seed) not in found["wrong"]]
    return record | {"mended": mended, "wrong": found["wrong"]}, len(found["wrong"])


def _samples(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    from prove import torch_samples

    dtypes = torch_samples.NARROW if options.narrow else torch_samples.DTYPES
    found = torch_samples.run(folder, int(options.count), dtypes, _say)
    rows = [vars(row) for row in found]  # `asdict` makes a Counter of a Counter's items
    record = {"count": int(options.count), "narrow": options.narrow, "rows": rows}
    return record, sum(len(row["wrong"]) for row in rows)


def _models(options: argparse.Namespace, _: Path) -> tuple[dict[str, Any], int]:
    from random_models.run import run

    seeds = range(options.seed, options.seed + int(options.count))
    record = run(seeds, options.processes, options.seconds, _say)
    return record, len(record["wrong"])


def _code(options: argparse.Namespace, _: Path) -> tuple[dict[str, Any], int]:
    from prove import code_mutants

    seeds, begin = range(options.seed, options.seed + int(options.count)), time.time()

    def note(record: dict[str, Any]) -> None:
        """Write what is known so far: the run may be ended."""
        if options.record:
            records.write(options.record, records.origin(time.time() - begin) | record)

    record = code_mutants.run(
        seeds,
        only=options.areas,
        processes=options.processes,
        seconds=options.seconds,
        hangs=options.hangs,
        say=_say,
        note=note,
    )
    return record, len(code_mutants.unexplained(record))


def _code_again(options: argparse.Namespace, _: Path) -> tuple[dict[str, Any], int]:
    """Judge the changes of a record once more that survived, by more tests."""
    from prove import code_mutants

    record = code_mutants.run_again(
        json.loads(options.record.read_text()),
        options.processes,
        options.seconds,
        options.hangs,
        _say,
    )
    return record, len(code_mutants.unexplained(record))


def _sanitizers(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    from prove import sanitizers

    seeds = range(options.seed, options.seed + int(options.count))
    record = sanitizers.run(seeds, folder, options.processes, _say)
    return record, len(record["wrong"])


def _faults(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], int]:
    from prove import faults

    record = faults.run(int(options.count), options.seed, folder, _say)
    return record, len(record["wrong"])


#: What each measure does: a record, and how much of it is wrong.
MEASURES: dict[str, Callable[[argparse.Namespace, Path], tuple[dict[str, Any], int]]] = {
    "inputs": _inputs,
    "specs": _specs,
    "specs_again": _again,
    "samples": _samples,
    "models": _models,
    "code": _code,
    "code_again": _code_again,
    "faults": _faults,
    "sanitizers": _sanitizers,
}
#: Those that may find nothing left to do.
AGAIN = ("specs_again", "code_again")
#: How much of each by default: float32 numbers, changed specs, samples of an op, models, changes of the code,
#: builds that are killed, random programs under sanitizers.
COUNTS = {
    **{"inputs": 10_000_000, "specs": 3000, "specs_again": 0, "samples": 6, "models": 20},
    **{"code": 40, "code_again": 0, "faults": 30, "sanitizers": 12},
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="prove", description="Measure, and write a record.")
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--count", type=float, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--narrow", action="store_true", help="samples of 16 bits")
    parser.add_argument("--record", type=Path, help="the JSON file to write")
    parser.add_argument("--before", type=Path, help="inputs: the record of a run to continue")
    parser.add_argument("--areas", nargs="*", default=[], help="what of the code is changed")
    parser.add_argument(
        "--processes", type=int, default=1, help="how many at once: functions, trees, parts"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="when no other one begins")
    parser.add_argument("--at-most", type=float, help="seconds after which it ends with an error")
    parser.add_argument("--hangs", type=float, default=900, help="seconds after which tests hang")
    options = parser.parse_args()
    if options.measure == "inputs" and options.device == "cuda":
        options.count = options.count or 2**32
    options.count = options.count or COUNTS[options.measure]
    return options


def _device(name: str) -> str:
    """Return what a record calls a device."""
    import torch

    return torch.cuda.get_device_name() if name == "cuda" else name


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
