"""Deliberate faults in fusegen's own code: each is one change in a copy of the tree, and tests should fail.

Tests run in stages, the most telling first, until one fails. What they are is data: code_areas.yaml.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prove.code_changes import Change, changes
from prove.records import ROOT

AREAS = Path(__file__).with_name("code_areas.yaml")
#: Seconds after which a stage of tests hangs, on a machine that has other work to do too.
HANGS = 900
#: A stage that is no test: whether packages are the same code, so that tests of packages cannot fail.
SAME_CODE = "same code"
#: How many tests of a stage may fail without a change.
PATIENCE = 20
#: What of the tree a copy has.
COPIED = ("fusegen", "templates", "tests", "specs", "generated", "examples", "benchmarks", "docs")
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
        outcome: "killed", "survived", or "no code" if it does not compile or cannot be imported.
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
        stages: the tests of all, a list of pytest's arguments for each stage; or `SAME_CODE`.
        first: the tests of one file, before the others, by its name.
    """

    files: Sequence[Path]
    stages: Sequence[Sequence[str] | str]
    first: Mapping[str, Sequence[str]]

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
        found[name] = Area(files, given["stages"], given.get("first", {}))
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


class Tree:
    """A copy of the tree in which a file can be changed and tests run."""

    def __init__(self, folder: Path) -> None:
        self.root, self._temp, self._log = folder / "tree", folder / "temp", folder / "log"
        self.known_code = folder / "known_code.json"
        for name in COPIED:
            ignored = shutil.ignore_patterns(".build", "*.so", "__pycache__")
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        for path in ROOT.iterdir():
            if path.is_file() and path.name != ".git":
                shutil.copy(path, self.root / path.name)
        command = [sys.executable, str(self.root / "tests/prove/warm_pytest.py"), str(self.root)]
        environment = {**os.environ, "FUSEGEN_KNOWN_CODE": str(self.known_code)}
        self._pytest = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def close(self) -> None:
        """End the process that runs tests."""
        assert self._pytest.stdin
        self._pytest.stdin.close()
        self._pytest.wait()

    @contextmanager
    def changed(self, path: Path, change: Change) -> Iterator[None]:
        """Change a file until the block ends."""
        text = path.read_text()
        copy = self.root / path.relative_to(ROOT)
        copy.write_text(change.of(text))
        try:
            yield
        finally:
            copy.write_text(text)

    def same_code(self, path: Path, change: Change) -> bool:
        """Whether a change of a file leaves the code of packages as it is."""
        if not self.known_code.exists():
            self.run(["tests/prove/same_code.py"], HANGS)
        with self.changed(path, change):
            return self.run(["tests/prove/same_code.py"], HANGS)[0] == 0

    def run(self, arguments: Sequence[str], seconds: float) -> tuple[int | str, str]:
        """Run tests; return pytest's exit status or "hangs", and what it said."""
        # The same names each time, so that ccache knows what it has compiled.
        shutil.rmtree(self._temp, ignore_errors=True)
        always = f"-x -q -n0 -p no:cacheprovider -W ignore --basetemp={self._temp}".split()
        asked = {"arguments": [*always, *arguments], "log": str(self._log), "seconds": seconds}
        assert self._pytest.stdin and self._pytest.stdout
        print(json.dumps(asked), file=self._pytest.stdin, flush=True)
        answer: int | str = json.loads(self._pytest.stdout.readline())
        return answer, self._log.read_text(errors="replace")


class Unsound:
    """The tests that fail without a change too, on this machine; each is asked about once."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def options(self) -> list[str]:
        """Return the options that leave these tests out."""
        return [
            option for test, bad in self._known.items() if bad for option in ("--deselect", test)
        ]

    def has(self, test: str, tree: Tree) -> bool:
        """Whether a test fails in a tree without a change."""
        if test not in self._known:
            self._known[test] = tree.run([test], HANGS)[0] != 0
        return self._known[test]


def judge(
    mutant: Mutant, stages: Iterator[Sequence[str] | str], tree: Tree, unsound: Unsound, ends: float
) -> bool:
    """Run the tests of a change until one fails that does not without it; return whether there was time."""
    for arguments in stages:
        if isinstance(arguments, str):
            if tree.same_code(ROOT / mutant.file, mutant.change):
                mutant.outcome, mutant.by = "survived", "packages are the same code"
                return True
            continue
        for _ in range(PATIENCE):
            left = min(HANGS, ends - time.monotonic())
            with tree.changed(ROOT / mutant.file, mutant.change):
                status, said = tree.run([*arguments, *unsound.options()], left)
            if status in (0, 5):  # all passed, or none is there
                break
            if status == "hangs" and time.monotonic() >= ends:
                return False
            failed = _FAILED.search(said)
            if failed and unsound.has(failed[1], tree):
                continue
            mutant.by = failed[1] if failed else "hangs" if status == "hangs" else f"exit {status}"
            unknown = status in (2, 3, 4) or "ImportError while loading conftest" in said
            mutant.outcome = "no code" if unknown or _REFUSED.search(said) else "killed"
            return True
        else:
            raise RuntimeError(f"more than {PATIENCE} tests of {arguments} fail without a change")
    mutant.outcome = "survived"
    return True


def run(
    seeds: Sequence[int],
    *,
    only: Sequence[str],
    processes: int,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Return what became of the changes of some seeds.

    Args:
        seeds: the seeds.
        only: the areas; none for all that need no GPU.
        processes: how many trees are tested at once.
        seconds: after how many it ends, without the changes that are not judged by then.
        say: where to say how far it is.
    """
    known = areas()
    chosen = {name: known[name] for name in only or [n for n in known if not n.startswith("gpu")]}
    ends, done, waiting = time.monotonic() + seconds, [], list(reversed(seeds))
    lock, unsound = threading.Lock(), Unsound()

    def work(folder: Path) -> None:
        tree = Tree(folder)
        try:
            while time.monotonic() < ends:
                with lock:
                    if not waiting:
                        return
                    seed = waiting.pop()
                name, path, change = draw(seed, chosen)
                mutant = Mutant(seed, name, str(path.relative_to(ROOT)), change)
                began = time.monotonic()
                in_time = judge(mutant, chosen[name].tests(path), tree, unsound, ends)
                mutant.seconds = round(time.monotonic() - began, 1)
                if in_time:
                    with lock:
                        done.append(mutant)
                        say(_line(mutant, len(done)))
        finally:
            tree.close()

    with tempfile.TemporaryDirectory(prefix="code_mutants_") as folder:
        places = [Path(folder) / str(n) for n in range(processes)]
        with ThreadPoolExecutor(processes) as pool:
            for each in pool.map(work, places):
                assert each is None
    done.sort(key=lambda mutant: mutant.seed)
    return {"seed": seeds[0], "areas": [*chosen], "mutants": [mutant.row() for mutant in done]}


def _line(mutant: Mutant, number: int) -> str:
    row = mutant.row()
    return (
        f"{number}: seed {mutant.seed} {mutant.outcome} {mutant.by} after {mutant.seconds} s, "
        f"{mutant.file}:{row['line']}\n  - {row['was']}\n  + {row['becomes']}"
    )


def unexplained(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the changes of a record that survived without a reason."""
    return [m for m in record["mutants"] if m["outcome"] == "survived" and not m["reason"]]
