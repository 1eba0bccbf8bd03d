"""The tables of docs/evidence.md about faults, sanitizers and compute-sanitizer, from their records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prove.records import ROOT

Record = Mapping[str, Any]
#: What benchmarks/gpu_sanitize.sh wrote.
GPU = ROOT / "benchmarks" / "gpu_tests" / "sanitize_forms.txt"


def called(
    faults: Sequence[Record], sanitizers: Sequence[Record]
) -> list[tuple[str, str, str, Record]]:
    """Return the rows of the summary: part, command, result, record."""
    found = []
    for record in faults:
        trials = sum(row["trials"] for row in record["rows"])
        refused = sum(row["refused"] for row in record["rows"])
        said = f"{trials} trials of {len(record['rows'])} kinds, {refused} refused with a remedy"
        found.append(("faults", _command("faults", record), _with_wrong(said, record), record))
    for record in sanitizers:
        calls = sum(row["calls"] for row in record["rows"])
        said = (
            f"{calls} calls under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer"
        )
        found.append(
            ("sanitizers", _command("sanitizers", record), _with_wrong(said, record), record)
        )
    return found


def _command(measure: str, record: Record) -> str:
    return f"prove {measure} --seed {record['seed']} --count {record['count']}"


def _with_wrong(said: str, record: Record) -> str:
    return f"{said}; {len(record['wrong'])} wrong"


def faults(records: Sequence[Record]) -> str:
    """Return the table of faults."""
    lines = [
        "| fault | trials | right | refused | wrong | what is said, for example |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for record in records:
        for row in record["rows"]:
            counts = " | ".join(str(row[k]) for k in ("trials", "right", "refused"))
            said = row["messages"][0].replace("|", "/").replace("`", "") if row["messages"] else ""
            lines.append(f"| {row['fault']} | {counts} | {len(row['wrong'])} | {said} |")
    return "\n".join(lines) if records else "No record yet."


def sanitizers(records: Sequence[Record]) -> str:
    """Return the table of sanitizers."""
    lines = [
        "| sanitizer, instruction set | packages | calls | wrong |",
        "| --- | --- | --- | --- |",
    ]
    for record in records:
        for row in record["rows"]:
            lines.append(
                f"| {row['part']} | {row['packages']} | {row['calls']} | {len(row['wrong'])} |"
            )
    return "\n".join(lines) if records else "No record yet."


class Watched(NamedTuple):
    """What a tool watched: how many specs, how many of them to their end, calls, and runs with an error."""

    tool: str
    specs: int
    ended: int
    calls: int
    faulty: int


def tools() -> list[Watched]:
    """Return what each tool watched, from what the script wrote on a GPU.

    A run that did not come to its end, as when time or the tool's own memory ran out, says nothing of its
    calls.
    """
    text = GPU.read_text() if GPU.exists() else ""
    line = r"^(\w+) (\w+)(?: \d+)?: exit \d+;(?: (\d+) calls)?(.*)$"
    runs = re.findall(line, text, re.MULTILINE)
    found = []
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck", "values"):
        of = [(spec, calls, said) for t, spec, calls, said in runs if t == tool]
        specs = {spec for spec, _, _ in of}
        cut = {spec for spec, calls, _ in of if not calls}
        faulty = sum(
            bool(calls and re.search(r"\b[1-9]\d* (error|hazard|wrong)", said))
            for _, calls, said in of
        )
        count = sum(int(calls or 0) for _, calls, _ in of)
        found.append(Watched(tool, len(specs), len(specs - cut), count, faulty))
    return found


def forms() -> str:
    """Return the table of compute-sanitizer's tools, from what the script wrote on a GPU."""
    if not GPU.exists():
        return "No record yet: `bash benchmarks/gpu_sanitize.sh RECORD_FOLDER` makes it."
    text = GPU.read_text()
    lines = [
        "| tool | specs | of these to their end | calls | runs with an error |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(map(str, row))} |" for row in tools()]
    ran = re.search(r"^\d+ of \d+ forms ran$", text, re.MULTILINE)
    machine = text.splitlines()[0]
    seen, of = raced()
    return "\n".join(
        [
            *lines,
            "",
            f"{ran[0] if ran else 'No forms were listed'}. Of the instantiations that ran in chains, "
            f"{seen} of {of} ran in calls that racecheck ended. Machine: {machine}.",
        ]
    )


def raced() -> tuple[int, int]:
    """Return how many forms, with their numbers, ran in calls that racecheck ended; and of how many."""
    text = GPU.read_text() if GPU.exists() else ""
    found = re.search(r"^racecheck: (\d+) of (\d+) forms", text, re.MULTILINE)
    return (int(found[1]), int(found[2])) if found else (0, 0)
