"""File systems that are full, or that nothing can be written to."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from prove.fault_bench import Bench, Row, judged
from prove.records import ROOT


def _alone(
    script: str, environment: dict[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell with mounts of its own."""
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return _alone("mount -t tmpfs tmpfs /mnt", dict(os.environ)).returncode == 0


#: Builds in a small file system, asks the package, makes it larger, builds and asks again.
SMALL = """
mount -t tmpfs -o size={size}k tmpfs {folder} && cp {spec} {folder}/ && export TMPDIR={folder}
{build} > {said} 2>&1; echo "built $?"
unset TMPDIR
{ask}
mount -o remount,size=1g {folder} && export TMPDIR={folder}
{build} > {said}.again 2>&1; echo "built $?"
unset TMPDIR
{ask}
"""


def full_disk(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """A file system of a random size that is full before a build ends; then one with room."""
    row, after = (
        Row("a full disk: a file system of a random size"),
        Row("the build after it has room"),
    )
    if not _can_mount():
        row.messages.append("not run: no user may mount here")
        yield row
        return
    bench = Bench(folder)
    bench.write(6)
    needed = _kib_of_a_build(folder)
    outside = folder.parent / "faulty.yaml"
    shutil.copy(bench.spec, outside)
    said = folder.parent / "said.txt"
    for _ in range(max(6, count // 3)):
        size = rng.randrange(16, needed)
        script = SMALL.format(
            size=size,
            folder=folder,
            spec=outside,
            said=said,
            build=" ".join(bench.command()),
            ask=f"{sys.executable} {ROOT / 'tests/prove/fault_bench.py'} {folder} 6",
        )
        environment = {**bench.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        done = _alone(script, {**environment, "PYTHONDONTWRITEBYTECODE": "1"})
        lines = done.stdout.splitlines()
        if len(lines) != 4:
            row.saw(("wrong", f"{done.stdout[-300:]} {done.stderr[-300:]}"), f"{size} KiB")
            continue
        row.trials += 1
        code = int(lines[0].removeprefix("built "))
        kind, text = judged(code, said.read_text())
        used = _asked(lines[1])
        bad = kind == "wrong" or used[0] == "wrong"
        row.saw((kind, text) if kind == "wrong" else used if bad else (kind, text), f"{size} KiB")
        after.trials += 1
        built = judged(int(lines[2].removeprefix("built ")), Path(f"{said}.again").read_text())
        after.saw(_asked(lines[3]) if built[0] == "right" else ("wrong", built[1]), f"{size} KiB")
    yield row
    yield after


def _kib_of_a_build(folder: Path) -> int:
    """Return the size of all that a build of the small package leaves, in KiB."""
    bench = Bench(folder.parent / "sized")
    bench.write(6)
    bench.build()
    return sum(f.stat().st_size for f in bench.folder.rglob("*") if f.is_file()) // 1024


def _asked(line: str) -> tuple[str, str]:
    kind, _, text = line.partition("\t")
    return kind, text


#: Mounts a folder over itself so that nothing can be written there, and builds and asks.
LOCKED = """
mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}
{build} > {said} 2>&1; echo "built $?"
{ask}
"""


def read_only(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """Nothing can be written in the folder of a package: before its first build, when built, when stale."""
    del count, rng
    row = Row("a read-only folder: nothing built, up to date, stale")
    if not _can_mount():
        row.messages.append("not run: no user may mount here")
        yield row
        return
    for state, numbers in (("nothing built", ()), ("up to date", (4.0,)), ("stale", (4.0,))):
        bench = Bench(folder / state.replace(" ", "_"))
        bench.write(4)
        if numbers:
            bench.build()
        if state == "stale":
            bench.write(5)
        said = folder / "said.txt"
        script = LOCKED.format(
            folder=bench.folder,
            said=said,
            build=" ".join(bench.command()),
            ask=f"{sys.executable} {ROOT / 'tests/prove/fault_bench.py'} {bench.folder} 4",
        )
        environment = {**bench.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        done = _alone(script, environment)
        built, asked = done.stdout.splitlines()
        row.trials += 1
        verdict = judged(int(built.removeprefix("built ")), said.read_text())
        used = _asked(asked)
        if used[0] == "wrong" or (numbers and used[0] != "right"):
            verdict = ("wrong", f"the package: {used[1]}")
        elif state != "up to date" and verdict[0] == "right":
            verdict = ("wrong", "the build said that it succeeded")
        row.saw(verdict, state)
    yield row
