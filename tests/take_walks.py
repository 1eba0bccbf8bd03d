"""Does the walks of docs/walks word for word, each in an empty folder, and prints how long each command took:

    PYTHONPATH=tests python tests/take_walks.py [WALK.md …]

`fusegen` and `python` are those on PATH, so that a clean environment can be tried. A block of Python or YAML
after "`NAME`:" is that file. Any other block without a language is commands, a line each; blocks of text are
what they print.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WALKS = sorted((ROOT / "docs" / "walks").glob("[!R]*.md"))
_BLOCK = re.compile(r"(?:`([\w./]+)`[^`\n]*:\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """A file to write, if it has a name, or a command."""

    file: str
    text: str


def steps(page: Path) -> list[Step]:
    """Return what a reader of a walk does, in order.

    Raises:
        ValueError: a block is neither a file, nor commands, nor what they print.
    """
    found = []
    for file, language, text in _BLOCK.findall(page.read_text()):
        if file and language:
            found.append(Step(file, text))
        elif not language:
            found += [Step("", line) for line in text.splitlines()]
        elif language != "text":
            raise ValueError(f"{page}: a block of {language} without the name of its file:\n{text}")
    return found


def take(page: Path, folder: Path) -> float:
    """Do a walk in a folder; return the seconds that the processors worked for it.

    Raises:
        CalledProcessError: a command fails.
    """
    total = 0.0
    for file, text in steps(page):
        if file:
            (folder / file).write_text(text)
            continue
        print(f"$ {text}", flush=True)
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(["bash", "-c", text], cwd=folder, check=True)
        after, spent = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
        worked = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        total += worked
        print(f"  {worked:.1f} s of processors, {spent:.1f} s", flush=True)
    return total


def main() -> None:
    """Do the walks that are named, or all."""
    for page in map(Path, sys.argv[1:]) if sys.argv[1:] else WALKS:
        with tempfile.TemporaryDirectory() as folder:
            total = take(page.absolute(), Path(folder))
        print(f"{page.name}: {total:.0f} s of processors\n", flush=True)


if __name__ == "__main__":
    main()
