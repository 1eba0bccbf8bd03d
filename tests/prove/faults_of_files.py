"""Files that are damaged or removed: of a package, of what builds keep, and of caches."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from fusegen.base import stamp
from prove.fault_bench import Bench, Row


def _spoiled(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Return a file's content with one fault in it, and what that is."""
    place = rng.randrange(max(len(content), 1))
    kind = rng.choice(("bit", "cut", "zeros", "more", "empty", "swapped"))
    if kind == "bit" and content:
        flipped = content[place] ^ 1 << rng.randrange(8)
        return f"a bit of byte {place}", content[:place] + bytes([flipped]) + content[place + 1 :]
    if kind == "cut":
        return f"cut at {place}", content[:place]
    if kind == "zeros":
        return f"zeros from {place}", content[:place] + bytes(
            min(512, len(content) - place)
        ) + content[place + 512 :]
    if kind == "more":
        return "more at its end", content + b"more"
    if kind == "swapped" and len(content) > 2:
        return f"turned round at {place}", content[place:] + content[:place]
    return "empty", b""


def damaged(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """A file of a built package is damaged: its library, its sources, its Python code, its spec's package."""
    bench = Bench(folder)
    bench.write(3)
    bench.build()
    place = bench.out / bench.name
    for fault, names in (
        ("the library is damaged", ["_cpu.so"]),
        ("a source of the package is damaged", [*stamp.SOURCES]),
    ):
        row, after = Row(fault), Row(f"the build after {fault}")
        for trial in range(2 * count):
            file = place / rng.choice([n for n in names if (place / n).is_file()])
            content = file.read_bytes()
            what, spoiled = _spoiled(content, rng)
            where = f"{file.name}, {what}"
            # Never in place: a loaded library is a mapping of the file.
            _replace(file, spoiled)
            row.trials += 1
            row.saw(bench.verdict(3), where)
            if trial % 6 == 0:
                after.trials += 1
                kind, text = bench.build()
                after.saw(bench.verdict(3) if kind == "right" else ("wrong", text), where)
            _replace(file, content)
        yield row
        yield after
        bench.build()


def objects(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """A file that builds keep is damaged: an object, ninja's log, what is linked into a library."""
    bench = Bench(folder)
    bench.write(2)
    bench.build()
    row = Row(
        "an object, a log or a stamp that builds keep is damaged, and what it makes is removed"
    )
    numbers = iter(range(3, 10**6))
    for _ in range(count):
        kept = sorted(
            f
            for f in (*(bench.out / ".build").rglob("*"), *(folder / "objects").rglob("*"))
            if f.is_file()
        )
        file = rng.choice(kept)
        what, spoiled = _spoiled(file.read_bytes(), rng)
        where = f"{file.relative_to(folder)}, {what}"
        _replace(file, spoiled)
        (bench.out / bench.name / "_cpu.so").unlink(missing_ok=True)
        number = 2
        if rng.random() < 0.3:  # a change of the spec finds the same damage
            number = next(numbers)
            bench.write(number)
        row.trials += 1
        kind, text = bench.build()
        row.saw(bench.verdict(number) if kind == "right" else (kind, text), where)
        if kind != "right":
            shutil.rmtree(bench.out)
        bench.write(2)
        bench.build()
    yield row


def _replace(file: Path, content: bytes) -> None:
    new = file.with_name(f"{file.name}.damaged")
    new.write_bytes(content)
    new.chmod(file.stat().st_mode)
    new.replace(file)


def removed(count: int, rng: random.Random, folder: Path) -> Iterator[Row]:
    """Some of the files of a package, of what builds keep, and of caches are removed."""
    bench = Bench(folder)
    bench.write(5)
    bench.build()
    row, after = (
        Row("files of a package, of builds and of caches are removed"),
        Row("the build after that"),
    )
    for trial in range(count):
        files = sorted(f for f in folder.rglob("*") if f.is_file() and f != bench.spec)
        for file in rng.sample(files, rng.randint(min(1, len(files)), len(files))):
            file.unlink()
        row.trials += 1
        row.saw(bench.verdict(5), f"round {trial}")
        if trial % 2:
            after.trials += 1
            kind, text = bench.build()
            after.saw(bench.verdict(5) if kind == "right" else ("wrong", text), f"round {trial}")
    yield row
    yield after
