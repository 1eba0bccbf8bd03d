"""The tables of docs/evidence.md about faults, sanitizers and compute-sanitizer, from their records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

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


def tools() -> list[tuple[str, int, int, int]]:
    """Return each tool's specs, calls, and specs without an error, from what the script wrote on a GPU."""
    text = GPU.read_text() if GPU.exists() else ""
    ends = re.findall(r"^(\w+) (\w+): exit (\d+);(?: (\d+) calls)?", text, re.MULTILINE)
    found = []
    for tool in ("memcheck", "racecheck", "initcheck", "synccheck", "values"):
        of = [(code, int(calls or 0)) for t, _, code, calls in ends if t == tool]
        good = sum(code == "0" for code, _ in of)
        found.append((tool, len(of), sum(calls for _, calls in of), good))
    return found


def forms() -> str:
    """Return the table of compute-sanitizer's tools, from what the script wrote on a GPU."""
    if not GPU.exists():
        return "No record yet: `bash benchmarks/gpu_sanitize.sh RECORD_FOLDER` makes it."
    text = GPU.read_text()
    lines = ["| tool | specs | calls | without an error |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in tools()]
    ran = re.search(r"^\d+ of \d+ forms ran$", text, re.MULTILINE)
    machine = text.splitlines()[0]
    return "\n".join(
        [*lines, "", f"{ran[0] if ran else 'No forms were listed'}. Machine: {machine}."]
    )
