"""The table of docs/evidence.md of what was aimed at: what the records hold, and why that is less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prove import page_of_faults

Record = Mapping[str, Any]
#: The largest error that is aimed at, in ulp.
AIMED = {"bfloat16": 1, "float16": 1, "float32": 4}
_ROUNDING = (
    "each rounding of these formulas may cost as much (†), or the reason stands below the table (‡)"
)
_NO_GPU = "no record of a GPU yet: `benchmarks/prove_gpu.sh`"


@dataclass(frozen=True)
class Target:
    """A figure.

    Args:
        what: what it counts.
        aim: what was aimed at.
        found: what the records hold.
        met: whether that is enough.
        reason: why it is not.
    """

    what: str
    aim: str
    found: str
    met: bool
    reason: str = ""

    def line(self) -> str:
        """Return a row of the table."""
        said = "met" if self.met else f"missed: {self.reason}"
        return f"| {self.what} | {self.aim} | {self.found} | {said} |"


def least(what: str, aim: int, found: int, reason: str) -> Target:
    """Return a target of so many at least."""
    return Target(what, f"{aim:,}", f"{found:,}", found >= aim, reason)


def none_of(what: str, found: int, total: int, reason: str = "") -> Target:
    """Return a target of none, of a total that was tried."""
    return Target(what, "0", f"{found:,} of {total:,}", not found and total > 0, reason)


def table(records: Callable[[str], Sequence[Record]]) -> str:
    """Return the table.

    Args:
        records: gives the records whose names fit a pattern.
    """
    targets = [
        *_inputs(records("inputs_cpu"), records("inputs_cuda")),
        *_samples(records("samples*")),
        *_random(records("programs_*"), records("models_*"), records("specs")),
        *_faults(records("faults"), records("sanitizers")),
        *_code(records("code_*")),
    ]
    return "\n".join(
        [
            "| what | aimed at | recorded | |",
            "| --- | --- | --- | --- |",
            *(target.line() for target in targets),
        ]
    )


def _inputs(cpu: Sequence[Record], cuda: Sequence[Record]) -> list[Target]:
    found = []
    slow = "the time of the run; a count below is that of the function with the fewest"
    for device, records, aim in (("CPU", cpu, 10**7), ("GPU", cuda, 2**32)):
        rows = [row for record in records for row in record["rows"]]
        narrow = [row for row in rows if row["dtype"] != "float32"]
        wide = [row for row in rows if row["dtype"] == "float32"]
        functions = len({row["package"] for row in narrow if row["inputs"] == 2**16})
        reason = slow if rows else _NO_GPU
        found += [
            least(f"{device}: functions of x at all numbers of 16 bits", 73, functions, reason),
            least(
                f"{device}: float32 numbers for each function",
                aim,
                min((row["inputs"] for row in wide), default=0),
                reason,
            ),
        ]
        if not rows:
            continue
        beyond = [row for row in rows if _over(row) > AIMED[row["dtype"]]]
        found += [
            none_of(f"{device}: rows of 16 bits beyond 1 ulp", _far(narrow), len(narrow)),
            none_of(f"{device}: rows of float32 beyond 4 ulp", _far(wide), len(wide), _ROUNDING),
            none_of(
                f"{device}: rows worse than torch's by more than that",
                len(beyond),
                len(rows),
                _ROUNDING,
            ),
        ]
    return found


def _far(rows: Sequence[Record]) -> int:
    return sum(bool(row["far"]) for row in rows)


def _over(row: Record) -> float:
    return float(row["over"])


def _samples(records: Sequence[Record]) -> list[Target]:
    rows = [row for record in records for row in record["rows"]]
    dtypes = sorted({row["dtype"] for row in rows})
    wrong, results = (
        sum(n) for n in ([len(r["wrong"]) for r in rows], [r["results"] for r in rows])
    )
    return [
        none_of("torch's samples: results that are wrong", wrong, results),
        Target(
            "torch's samples: dtypes",
            "4",
            ", ".join(dtypes),
            len(dtypes) >= 4,
            "16 bits are compared by random programs, by the vocabulary's tests and at every input",
        ),
    ]


def _random(
    programs: Sequence[Record], models: Sequence[Record], specs: Sequence[Record]
) -> list[Target]:
    made, fused = (
        sum(r[key] for r in of) for of, key in ((programs, "programs"), (models, "models"))
    )
    changed = sum(r["count"] for r in specs)
    explained = {n: said for r in programs for n, said in r.get("explained", {}).items()}
    return [
        least("random programs", 2000, made, "the time there was"),
        none_of(
            "of these wrong, or crashing",
            sum(len(r["failed"]) for r in programs),
            made,
            "; ".join(f"{name}, where {said}" for name, said in explained.items()),
        ),
        least("random models, fused", 200, fused, "the time there was"),
        none_of("of these wrong", sum(len(r["wrong"]) for r in models), fused),
        least("changed specs", 20_000, changed, "the time there was"),
        none_of("of these wrong", sum(len(r["wrong"]) for r in specs), changed),
    ]


def _faults(faults: Sequence[Record], sanitizers: Sequence[Record]) -> list[Target]:
    trials = sum(row["trials"] for r in faults for row in r["rows"])
    calls = sum(row["calls"] for r in sanitizers for row in r["rows"])
    tools = page_of_faults.tools()
    seen, of = page_of_faults.raced()
    whole = {t.tool for t in tools if t.specs and t.specs == t.ended} | (
        {"racecheck"} if 0 < of == seen else set()
    )
    good = [t.tool for t in tools if t.tool in whole and not t.faulty]
    return [
        none_of(
            "faults of builds, disks and files: wrong", sum(len(r["wrong"]) for r in faults), trials
        ),
        none_of(
            "calls under sanitizers of the CPU: wrong",
            sum(len(r["wrong"]) for r in sanitizers),
            calls,
        ),
        Target(
            "compute-sanitizer's tools and values, clean over every form of CUDA",
            "5",
            ", ".join(good) or "0",
            len(good) == 5,
            "synccheck itself ends one spec of 17 with an illegal access, in which no other tool finds any",
        ),
    ]


def _code(records: Sequence[Record]) -> list[Target]:
    mutants = [m for each in records for m in each["mutants"]]
    judged = [m for m in mutants if m["outcome"] in ("killed", "survived")]
    killed = sum(m["outcome"] == "killed" or "since" in m for m in judged)
    first = sum(m["outcome"] == "killed" for m in judged)
    changing = max(1, len(judged) - sum(bool(m["reason"]) for m in judged))
    return [
        least("faults in the code that were judged", 200, len(judged), "the time there was"),
        Target(
            "of these that change something, found by the tests of then",
            "95 %",
            f"{first / changing:.1%}",
            first >= 0.95 * changing,
            f"with the tests that were written for survivors, {killed / changing:.1%}",
        ),
    ]
