"""A copy of the tree in which a file can be changed, and its tests run by a process of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prove.code_changes import Change
from prove.records import ROOT

#: What of the tree a copy has.
COPIED = ("fusegen", "templates", "tests", "specs", "generated", "examples", "benchmarks", "docs")
_CHANGED_CODE = "tests/prove/changed_code.py"


class Tree:
    """A copy of the tree in which a file can be changed and tests run.

    Args:
        folder: where it is.
        asking: held by the tree that asks what the code of packages is without a change.
        hangs: seconds after which tests hang.
    """

    def __init__(self, folder: Path, asking: threading.Lock, hangs: float) -> None:
        self.root, self._temp, self._log = folder / "tree", folder / "temp", folder / "log"
        self.hangs = hangs
        # One tree writes it for all.
        self._known_code, self._asking = folder.parent / "known_code.json", asking
        for name in COPIED:
            ignored = shutil.ignore_patterns(".build", "*.so", "__pycache__")
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        for path in ROOT.iterdir():
            if path.is_file() and path.name != ".git":
                shutil.copy(path, self.root / path.name)
        script = self.root / "tests/prove/warm_pytest.py"
        command = [sys.executable, str(script), str(self.root), str(ROOT)]
        self._changed_code = folder / "changed_code.json"
        environment = {
            **os.environ,
            "FUSEGEN_KNOWN_CODE": str(self._known_code),
            "FUSEGEN_CHANGED_CODE": str(self._changed_code),
        }
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

    def tests_of_changed(self, path: Path, change: Change, seconds: float) -> list[str] | None:
        """Return the tests of the first packages whose code a change of a file changes.

        None are left if it changes no package's code; None is returned if that cannot be said.
        """
        with self._asking:
            if not self._known_code.exists():
                self.run([_CHANGED_CODE], self.hangs)
        self._changed_code.unlink(missing_ok=True)
        with self.changed(path, change):
            if self.run([_CHANGED_CODE], seconds)[0] == 0:
                return []
        if not self._changed_code.exists():
            return None
        found: list[str] = json.loads(self._changed_code.read_text())
        return found

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
            self._known[test] = tree.run([test], tree.hangs)[0] != 0
        return self._known[test]
