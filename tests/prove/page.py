"""docs/evidence.md: the tables between its markers, made of the records. They are never edited by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from fusegen.base.files import write_if_different
from prove import page_of_faults, page_of_targets
from prove.every_input import REASONS
from prove.records import FOLDER, ROOT

PAGE = ROOT / "docs" / "evidence.md"
#: The order of a function's columns.
DTYPES = ("bfloat16", "float16", "float32")
Record = Mapping[str, Any]


def update() -> bool:
    """Write the tables into the page; return whether that changed it."""
    return write_if_different(PAGE, rendered(PAGE.read_text(encoding="utf-8")))


def rendered(text: str) -> str:
    """Return the page's text with the tables of the records."""
    for name, block in BLOCKS.items():
        opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.escape(opening) + r".*?" + re.escape(closing)
        assert re.search(pattern, text, re.DOTALL), f"{PAGE} has no place for {name}"
        new = f"{opening}\n{block()}\n{closing}"
        text = re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL)
    return text


def record(name: str) -> Record:
    """Return a record."""
    found: Record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _all(pattern: str) -> list[Record]:
    """Return the records whose names fit; none if there are none yet."""
    return [record(path.stem) for path in sorted(FOLDER.glob(f"{pattern}.json"))]


def _summary() -> str:
    specs = record("specs")
    calls = [
        *(_measured(inputs) for inputs in (record("inputs_cpu"), *_all("inputs_cuda"))),
        (
            "bad input",
            f"prove specs --seed {specs['seed']} --count {specs['count']}",
            f"{specs['errors']} errors with file and line, {specs['packages']} packages, of which "
            f"{specs['compiled']} were compiled and compared; {_wrong(specs)}",
            specs,
        ),
        *(_sampled(samples) for samples in _all("samples*")),
    ]
    for programs in _all("programs_*"):
        flags = "".join(f" --{flag}" for flag in ("quick", "named") if programs.get(flag))
        count = f"--seed {programs['seed']} --count {programs['count']}{flags}"
        said = (
            f"{programs['programs']} programs, {programs['calls']} calls, {programs['results']} results "
            f"compared; {_wrong(programs, 'failed')}"
        )
        calls.append(("random programs", f"run_random_programs.py {count}", said, programs))
    for models in _all("models_*"):
        command = f"prove models --seed {models['seed']} --count {models['count']}"
        said = (
            f"{models['models']} models fused, {models['ops']} ops in {models['regions']} kernels, "
            f"{models['results']} results compared; {len(models['wrong'])} wrong"
        )
        calls.append(("random models", command, said, models))
    for code in _all("code_*"):
        command = f"prove code --seed {code['seed']} --areas {' '.join(code['areas'])}"
        calls.append(("faults in the code", command, _counted(code["mutants"]), code))
    calls += page_of_faults.called(_all("faults"), _all("sanitizers"))
    lines = [
        "| part | command | result | commit, date, seconds (of processors) |",
        "| --- | --- | --- | --- |",
    ]
    for part, command, said, of in calls:
        used = f" ({of['cpu seconds']})" if "cpu seconds" in of else ""
        run = f"{of['commit']}, {of['date']}, {of['seconds']}{used}"
        lines.append(f"| {part} | `{command}` | {said} | {run} |")
    machines = {
        f"{of['machine']}; torch {of['versions']['torch']}, Python {of['versions']['python']}, "
        f"{of['versions']['compiler']}"
        for *_, of in calls
    }
    return "\n".join([*lines, "", *(f"Machine: {machine}." for machine in sorted(machines))])


def _sampled(samples: Record) -> tuple[str, str, str, Record]:
    """Return the row of the summary for a record of torch's samples."""
    rows = samples["rows"]
    dtypes = " and ".join(dict.fromkeys(row["dtype"] for row in rows))
    fused, every, results = (sum(row[k] for row in rows) for k in ("fused", "samples", "results"))
    return (
        "torch's samples",
        f"prove samples{' --narrow' if samples.get('narrow') else ''} --count {samples['count']}",
        f"{dtypes}: {fused} of {every} samples fused, {results} results compared, "
        f"{sum(len(row['wrong']) for row in rows)} wrong",
        samples,
    )


def _wrong(record: Record, key: str = "wrong") -> str:
    """Return how many were wrong, and how many of them are no longer."""
    mended = len(record.get("mended", ()))
    return f"{len(record[key])} wrong" + (f", {mended} more were, and are mended" if mended else "")


def _measured(inputs: Record) -> tuple[str, str, str, Record]:
    """Return the row of the summary for a record of every input."""
    rows = inputs["rows"]
    within = sum(row["far"] == 0 and row["right"] for row in rows)
    accounted = sum(bool(row["far"]) and row["right"] for row in rows)
    functions = len({row["package"] for row in rows})
    on_cpu = inputs["device"] == "cpu"
    float32 = [row["inputs"] for row in rows if row["dtype"] == "float32"]
    share = min(float32) / 2**32
    fewest = f", {f'at least {share:.0%} of ' if share < 1 else ''}all float32 numbers each"
    return (
        f"every input, {'CPU' if on_cpu else inputs['device']}",
        f"prove inputs {f'--count {min(float32)}' if on_cpu else '--device cuda'}",
        f"{functions} functions, {len(rows)} rows below{'' if on_cpu else fewest}: {within} within the "
        f"target, {accounted} within what rounding each operation may cost, "
        f"{len(rows) - within - accounted} explained",
        inputs,
    )


def _inputs(name: str = "inputs_cpu") -> str:
    rows = [row for each in _all(name) for row in each["rows"]]
    if not rows:
        return "No record yet."
    lines = [
        "| function | | " + " | ".join(DTYPES) + " |",
        "| --- | --- | " + " | ".join("---" for _ in DTYPES) + " |",
    ]
    for (function, order), group in groupby(rows, key=lambda row: (row["function"], row["order"])):
        cells = {row["dtype"]: _cell(row) for row in group}
        kind = ("value", "derivative")[order]
        lines.append(f"| `{function}` | {kind} | {' | '.join(cells[d] for d in DTYPES)} |")
    return "\n".join(lines)


def _counted(mutants: Sequence[Record]) -> str:
    """Return how many changes of the code tests find; those that are no code count for nothing."""
    found = [m for m in mutants if m["outcome"] in ("killed", "survived")]
    unjudged = sum(m["outcome"] == "no time" for m in mutants)
    killed = sum(m["outcome"] == "killed" for m in found)
    equal = sum(bool(m["reason"]) for m in found)
    rest = f"; {unjudged} more were not judged in time" if unjudged else ""
    share = f"{killed / max(1, len(found) - equal):.1%}"
    return f"{len(found)} faults: {killed} found, {equal} without effect; {share} of the others found{rest}"


def _why(mutant: Record) -> str:
    """Return why a change survived, or what finds it since."""
    found = f"found since by `{mutant['since']}`" if "since" in mutant else "not explained"
    return mutant["reason"] or found


def _code() -> str:
    mutants = [m for each in _all("code_*") for m in each["mutants"]]
    if not mutants:
        return "No record yet."
    judged = [m for m in mutants if m["outcome"] in ("killed", "survived")]
    different = len({(m["file"], m["was"], m["becomes"]) for m in judged})
    lines = ["| area | faults |", "| --- | --- |"]
    lines.append(f"| all, of which {different} are different | {_counted(mutants)} |")
    for area, group in groupby(sorted(mutants, key=lambda m: m["area"]), key=lambda m: m["area"]):
        lines.append(f"| `{area}` | {_counted([*group])} |")
    lines += ["", "| survivor | line | after the change | why |", "| --- | --- | --- | --- |"]
    for m in mutants:
        if m["outcome"] == "survived":
            texts = " | ".join(f"`{m[t].replace('|', chr(92) + '|')}`" for t in ("was", "becomes"))
            lines.append(f"| `{m['file']}:{m['line']}` | {texts} | {_why(m)} |")
    return "\n".join(lines)


def _cell(row: Record) -> str:
    """Return a largest error, where it is, and eager's."""
    worst = max(row["away"], row["crossing"], key=lambda w: float(w["ulp"]))
    at = "" if worst["x"] is None else f" at {worst['x']:.4g}"
    crossing = " (crossing)" if worst is row["crossing"] and worst["x"] is not None else ""
    mark = "" if row["far"] == 0 else " †" if row["units"] <= 1 else " ‡"
    eager = row["eager"]["ulp"]
    if worst["ulp"] == eager == 0:
        return "exact"
    return f"{_ulp(worst['ulp'])}{mark}{at}{crossing}, eager {_ulp(eager)}"


def _ulp(error: float) -> str:
    if error == 0:
        return "exact"
    return "all digits" if error > 1e5 else f"{error:.2g}" if error < 100 else f"{error:.0f}"


def _reasons() -> str:
    rows = [row for each in _all("inputs_*") for row in each["rows"]]
    lines = []
    for packages, reason in REASONS.items():
        named = dict.fromkeys(
            f"`{row['function']}`"
            for row in rows
            if row["package"] in packages and not row["right"]
        )
        if named:
            lines.append(f"- {', '.join(named)}: {reason}")
    return "\n".join(lines)


def _unlike() -> str:
    lines = [
        "| function | | dtype | fusegen's is the truth's | torch's is | neither | for example |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in record("inputs_cpu")["rows"]:
        unlike = row["unlike"]
        if not any(unlike[kind] for kind in ("torch", "zeros", "others")):
            continue
        worst = next(k for k in ("others", "zeros", "torch") if unlike[k])
        _, x, got, torchs, _ = next(e for e in unlike["examples"] if e[0] == worst)
        kind = ("value", "derivative")[row["order"]]
        counts = " | ".join(str(unlike[k]) for k in ("torch", "zeros", "others"))
        example = f"at {float(x):.4g}: {float(got):.4g}, torch {float(torchs):.4g}"
        lines.append(f"| `{row['function']}` | {kind} | {row['dtype']} | {counts} | {example} |")
    return "\n".join(lines)


def _messages() -> str:
    messages = record("specs")["messages"]
    return f"{len(messages)} kinds of errors."


def _samples() -> str:
    dtypes = ("float64", "float32", "bfloat16", "float16")
    rows = [row for record in _all("samples*") for row in record["rows"]]
    order: dict[tuple[str, str], int] = {}
    for row in rows:
        order.setdefault((row["op"], row["torch"]), len(order))
    lines = [
        "| op | torch's entry | samples | fused | results | largest error, "
        + " | ".join(dtypes)
        + " | wrong |",
        f"| {'--- | ' * (6 + len(dtypes))}",
    ]
    none: list[str] = []
    # What an op's entry has in several records stands together.
    rows = sorted(rows, key=lambda row: order[row["op"], row["torch"]])
    for (op, entry), group in groupby(rows, key=lambda row: (row["op"], row["torch"])):
        both = list(group)
        total = {k: sum(row[k] for row in both) for k in ("samples", "fused", "results")}
        wrong = sum(len(row["wrong"]) for row in both)
        if not (total["results"] or wrong):
            none.append(f"`{entry}`")
            continue
        worst = {row["dtype"]: f"{row['worst']:.2g}" for row in both}
        errors = " | ".join(worst.get(d, "") for d in dtypes)
        counts = " | ".join(map(str, total.values()))
        lines.append(f"| `{op}` | `{entry}` | {counts} | {errors} | {wrong} |")
    return "\n".join([*lines, "", f"None of these was fused: {', '.join(none)}."])


def _left() -> str:
    """Return why samples, or results of them, were not compared."""
    reasons: dict[str, int] = {}
    for row in (row for each in _all("samples*") for row in each["rows"]):
        for reason, count in row["left"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    lines = ["| samples | why not compared |", "| --- | --- |"]
    ordered: Sequence[tuple[str, int]] = sorted(reasons.items(), key=lambda item: -item[1])
    lines += [f"| {count} | {reason.replace('|', '/')} |" for reason, count in ordered]
    return "\n".join(lines)


#: The tables of the page.
BLOCKS = {
    "evidence:summary": _summary,
    "evidence:inputs": _inputs,
    "evidence:inputs_cuda": lambda: _inputs("inputs_cuda"),
    "evidence:reasons": _reasons,
    "evidence:unlike": _unlike,
    "evidence:messages": _messages,
    "evidence:samples": _samples,
    "evidence:left": _left,
    "evidence:code": _code,
    "evidence:targets": lambda: page_of_targets.table(_all),
    "evidence:faults": lambda: page_of_faults.faults(_all("faults")),
    "evidence:sanitizers": lambda: page_of_faults.sanitizers(_all("sanitizers")),
    "evidence:forms": page_of_faults.forms,
}
if __name__ == "__main__":
    update()
