"""Deliberate faults in fusegen's own code: each is one change in a copy of the tree, and tests should fail.

Tests run in stages, the most telling first, until one fails. What they are is data: code_areas.yaml.
"""

from __future__ import annotations

import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prove.code_changes import Change, changes
from prove.code_tree import Tree, Unsound
from prove.records import ROOT

AREAS = Path(__file__).with_name("code_areas.yaml")
#: A stage: the tests of packages whose code is another. Where there are none, no test of packages can fail.
CHANGED = "changed packages"
#: New changes begin in this part of the time, and are judged in the rest of it.
BEGIN = 0.6
#: How many tests of a stage may fail without a change.
PATIENCE = 20
#: What a compiler says of code that is none.
_REFUSED = re.compile(
    r"(?:\.(?:h|cuh|cpp|cu)(?::\d+:\d+: |\(\d+\): )(?:fatal )?error\b|ninja: error)"
)
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?(?:\[.*?\])?)(?: - .*)?$", re.MULTILINE)


@dataclass
class Mutant:
    """A change, and what became of it.

    Args:
        seed: what it was drawn with.
        area: the area of code_areas.yaml.
        file: the changed file.
        change: the change.
        outcome: "killed", "survived", "no time", or "no code" if it does not compile or cannot be imported.
        by: the test that failed, or "hangs".
        seconds: how long the tests ran.
        reason: why it is equivalent, if someone has found so.
    """

    seed: int
    area: str
    file: str
    change: Change
    outcome: str = ""
    by: str = ""
    seconds: float = 0.0
    reason: str = ""

    def row(self) -> dict[str, Any]:
        """Return what a record says of it."""
        line, was, becomes = self.change.lines((ROOT / self.file).read_text())
        said = {"line": line, "kind": self.change.kind, "was": was, "becomes": becomes}
        return (
            {name: getattr(self, name) for name in ("seed", "area", "file")}
            | said
            | {name: getattr(self, name) for name in ("outcome", "by", "seconds", "reason")}
        )


@dataclass(frozen=True)
class Area:
    """Some files and the stages of tests that concern them.

    Args:
        files: the files.
        stages: the tests of all, a list of pytest's arguments for each stage; or `CHANGED`.
        first: the tests of one file, before the others, by its name.
        wide: the tests of what survives these.
    """

    files: Sequence[Path]
    stages: Sequence[Sequence[str] | str]
    first: Mapping[str, Sequence[str]]
    wide: Sequence[Sequence[str]] = ()

    def tests(self, file: Path) -> Iterator[Sequence[str] | str]:
        """Yield the stages of tests for a file."""
        if file.name in self.first:
            yield self.first[file.name]
        yield from self.stages


def areas() -> dict[str, Area]:
    """Return the areas by name."""
    found = {}
    for name, given in yaml.safe_load(AREAS.read_text()).items():
        left = {path for pattern in given.get("not", ()) for path in ROOT.glob(pattern)}
        files = [path for pattern in given["files"] for path in ROOT.glob(pattern)]
        files = sorted(
            path for path in files if path not in left and changes(path, path.read_text())
        )
        found[name] = Area(files, given["stages"], given.get("first", {}), given.get("wide", ()))
    return found


def draw(seed: int, chosen: Mapping[str, Area]) -> tuple[str, Path, Change]:
    """Return a change: of an area, of a file by how many changes it may have, and in it any."""
    rng = random.Random(seed)
    name = rng.choice(sorted(chosen))
    found = {path: changes(path, path.read_text()) for path in chosen[name].files}
    # A file's polynomial has more numbers than another has lines: its root counts.
    path = rng.choices([*found], [len(each) ** 0.5 for each in found.values()])[0]
    kind = rng.choice(sorted({change.kind for change in found[path]}))
    return name, path, rng.choice([change for change in found[path] if change.kind == kind])


def judge(
    mutant: Mutant, stages: Iterator[Sequence[str] | str], tree: Tree, unsound: Unsound, ends: float
) -> None:
    """Run the tests of a change until one fails that does not fail without it."""
    path = ROOT / mutant.file
    for stage in stages:
        left = min(tree.hangs, ends - time.monotonic())
        if isinstance(stage, str):
            found = tree.tests_of_changed(path, mutant.change, left)
            if found is None:
                continue
            if not found:
                mutant.outcome, mutant.by = "survived", "packages are the same code"
                return
            stage = found
            left = min(tree.hangs, ends - time.monotonic())
        if not _passes(mutant, stage, tree, unsound, left):
            return
        if time.monotonic() >= ends:
            mutant.outcome = "no time"
            return
    mutant.outcome = "survived"


def _passes(
    mutant: Mutant, arguments: Sequence[str], tree: Tree, unsound: Unsound, seconds: float
) -> bool:
    """Whether tests pass in spite of a change; otherwise note what became of it."""
    for _ in range(PATIENCE):
        with tree.changed(ROOT / mutant.file, mutant.change):
            status, said = tree.run([*arguments, *unsound.options()], seconds)
        if status in (0, 5):  # all passed, or none is there
            return True
        failed = _FAILED.search(said)
        if status == "hangs":
            mutant.outcome = "killed" if seconds == tree.hangs else "no time"
            mutant.by = "hangs" if seconds == tree.hangs else ""
            return False
        if failed and unsound.has(failed[1], tree):
            continue
        mutant.by = failed[1] if failed else f"exit {status}"
        unknown = status in (2, 3, 4) or "ImportError while loading conftest" in said
        # What generated code the compiler refuses is a fault of the Python code that wrote it.
        refused = not mutant.file.endswith(".py") and _REFUSED.search(said)
        mutant.outcome = "no code" if unknown or refused else "killed"
        return False
    raise RuntimeError(f"more than {PATIENCE} tests of {arguments} fail without a change")


def run(
    seeds: Sequence[int],
    *,
    only: Sequence[str],
    processes: int,
    seconds: float,
    hangs: float,
    say: Callable[[str], None],
    note: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Return what became of the changes of some seeds.

    Args:
        seeds: the seeds.
        only: the areas; none for all that need no GPU.
        processes: how many trees are tested at once.
        seconds: after how many it ends; a change that is not judged by then has the outcome "no time".
        hangs: seconds after which a stage of tests hangs.
        say: where to say how far it is.
        note: called with what is known after each change.
    """
    known = areas()
    chosen = {name: known[name] for name in only or [n for n in known if not n.startswith("gpu")]}
    drawn = ((seed, *draw(seed, chosen)) for seed in seeds)
    waiting = [Mutant(s, n, str(path.relative_to(ROOT)), change) for s, n, path, change in drawn]

    def record(done: Sequence[Mutant]) -> dict[str, Any]:
        rows = [mutant.row() for mutant in sorted(done, key=lambda mutant: mutant.seed)]
        return {"seed": seeds[0], "areas": [*chosen], "mutants": rows}

    return record(
        _judged(waiting, processes, seconds, hangs, say, note=lambda done: note(record(done)))
    )


def run_again(
    record: Mapping[str, Any],
    processes: int,
    seconds: float,
    hangs: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return a record after its unexplained survivors have met the wide tests of their areas."""
    left = [row for row in unexplained(record) if "since" not in row]
    waiting = [found for row in left for found in _same(row)]
    done = {m.seed: m for m in _judged(waiting, processes, seconds, hangs, say, wide=True)}
    killed = {seed: m.by for seed, m in done.items() if m.outcome == "killed"}
    mutants = [
        row | ({"outcome": "killed", "by": killed[row["seed"]]} if row["seed"] in killed else {})
        for row in record["mutants"]
    ]
    return {**record, "mutants": mutants}


def _same(row: Mapping[str, Any]) -> Iterator[Mutant]:
    """Yield the change of a record's row, if the file still has the line."""
    path = ROOT / row["file"]
    text = path.read_text()
    for change in changes(path, text):
        if change.kind == row["kind"] and change.lines(text)[1:] == (row["was"], row["becomes"]):
            yield Mutant(row["seed"], row["area"], row["file"], change)
            return


def _judged(
    mutants: Sequence[Mutant],
    processes: int,
    seconds: float,
    hangs: float,
    say: Callable[[str], None],
    *,
    wide: bool = False,
    note: Callable[[list[Mutant]], None] = lambda _: None,
) -> list[Mutant]:
    """Return the changes that were judged in time, by the tests of their area or its wide ones."""
    known, begins = areas(), time.monotonic()
    done: list[Mutant] = []
    waiting = list(reversed(mutants))
    lock, asking, unsound = threading.Lock(), threading.Lock(), Unsound()

    def work(folder: Path) -> None:
        tree = Tree(folder, asking, hangs)
        try:
            while time.monotonic() < begins + BEGIN * seconds:
                with lock:
                    if not waiting:
                        return
                    mutant = waiting.pop()
                began, area = time.monotonic(), known[mutant.area]
                stages = iter(area.wide) if wide else area.tests(ROOT / mutant.file)
                judge(mutant, stages, tree, unsound, begins + seconds)
                mutant.seconds = round(time.monotonic() - began, 1)
                with lock:
                    done.append(mutant)
                    note(done)
                    say(_line(mutant, len(done)))
        finally:
            tree.close()

    with tempfile.TemporaryDirectory(prefix="code_mutants_") as folder:
        places = [Path(folder) / str(n) for n in range(processes)]
        with ThreadPoolExecutor(processes) as pool:
            for each in pool.map(work, places):
                assert each is None
    return sorted(done, key=lambda mutant: mutant.seed)


def _line(mutant: Mutant, number: int) -> str:
    row = mutant.row()
    return (
        f"{number}: seed {mutant.seed} {mutant.outcome} {mutant.by} after {mutant.seconds} s, "
        f"{mutant.file}:{row['line']}\n  - {row['was']}\n  + {row['becomes']}"
    )


def unexplained(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the changes of a record that survived without a reason."""
    return [m for m in record["mutants"] if m["outcome"] == "survived" and not m["reason"]]
