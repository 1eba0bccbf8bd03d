"""A small package that faults are tried on: built by the command line, called in a process of its own."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import fusegen
from prove.records import ROOT

#: What an error says that a user can act on.
REMEDY = re.compile(r"run `fusegen build|import it again|load it again|install")
X = torch.tensor([[1.0, -3.0, 0.5]] * 5)


@dataclass
class Row:
    """What became of the trials of a fault.

    Args:
        fault: what was done.
        trials: how often.
        right: how often the package gave the right numbers at once.
        refused: how often it, or a build, said what is wrong and what to do.
        messages: the kinds of what was said, each once.
        wrong: all else.
    """

    fault: str
    trials: int = 0
    right: int = 0
    refused: int = 0
    messages: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def saw(self, verdict: tuple[str, str], where: str = "") -> None:
        """Count a verdict."""
        kind, text = verdict
        if kind == "right":
            self.right += 1
        elif kind == "refused":
            self.refused += 1
            said = re.sub(r"\S*/(?=[\w.]+)|0x\w+", "", text)  # without folders
            said = re.sub(r"\d+", "N", said)[:160]
            if said not in self.messages:
                self.messages.append(said)
        else:
            self.wrong.append(f"{where}: {text}" if where else text)


class Bench:
    """A folder with a spec, its package, and caches of its own."""

    def __init__(self, folder: Path, name: str = "faulty") -> None:
        self.folder, self.name = folder, name
        self.out = folder / "generated"
        self.spec = folder / f"{name}.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FUSEGEN_")},
            **{"FUSEGEN_NATIVE": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            **{
                "FUSEGEN_OBJECTS": str(folder / "objects"),
                "FUSEGEN_MODELS": str(folder / "models"),
            },
        }

    def write(self, number: float) -> None:
        """Write a spec that multiplies by a number."""
        self.spec.write_text(f"order: 1\ndtypes: [float32]\nchain:\n  - expr: x * {number}\n")

    def command(self, *more: str) -> list[str]:
        """Return the command that builds."""
        build = [sys.executable, "-m", "fusegen", "build", str(self.spec), "--out", str(self.out)]
        return [*build, "--backend", "cpu", *more]

    def start(self, *more: str, **environment: str) -> subprocess.Popen[str]:
        """Start a build that leads a session of its own."""
        return subprocess.Popen(
            self.command(*more),
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def build(self, **environment: str) -> tuple[str, str]:
        """Build; return a verdict on what the command said."""
        process = self.start(**environment)
        said, _ = process.communicate(timeout=300)
        return judged(process.returncode, said)

    def verdict(self, *numbers: float) -> tuple[str, str]:
        """Load and call the package in a forked process; return what came of it.

        Args:
            numbers: those that may have been multiplied by.
        """
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            try:
                answer = self._called(numbers)
            except BaseException as error:
                answer = ("wrong", f"{type(error).__name__}: {error}")
            os.write(write, pickle.dumps(answer))
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        if not said:
            return "wrong", f"the process ended ({os.waitstatus_to_exitcode(status)})"
        found: tuple[str, str] = pickle.loads(said)
        return found

    def _called(self, numbers: tuple[float, ...]) -> tuple[str, str]:
        try:
            package = fusegen.load(self.name, self.out)
        except ImportError as error:
            return ("refused" if REMEDY.search(str(error)) else "wrong"), str(error)
        x = X.clone().requires_grad_()
        y = package.apply(x)
        (grad,) = torch.autograd.grad(y.sum(), x)
        for number in numbers:
            truth = X.double() * number
            if torch.allclose(y.double(), truth) and torch.allclose(
                grad.double(), torch.full_like(truth, number)
            ):
                return "right", ""
        return "wrong", f"{y[0].tolist()}, not x times one of {numbers}"


def judged(code: int | None, said: str) -> tuple[str, str]:
    """Return a verdict on a command: right if it succeeded, refused if it says in words why it did not."""
    if code == 0:
        return "right", ""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    if "Traceback (most recent call last)" in said or not errors or code is None or code < 0:
        return "wrong", f"exit {code}: {' '.join(lines)[-400:]}"
    first, last = errors[0].split("error:", 1)[1].strip(), lines[-1].strip()
    return "refused", first if lines[-1] == errors[0] else f"{first} … {last}"


def kill(session: int) -> None:
    """Kill every process of a session at once: compilers too, which ninja starts in groups of their own."""
    for _ in range(3):  # one may start another meanwhile
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (OSError, IndexError):  # it ended
                continue
        time.sleep(0.01)


def as_text(rows: list[Row]) -> list[dict[str, Any]]:
    """Return rows for a record."""
    return [vars(row) for row in rows]


def main() -> None:
    """Print the verdict on the package in a folder: `fault_bench.py FOLDER NUMBER…`."""
    folder, *numbers = sys.argv[1:]
    print("\t".join(Bench(Path(folder)).verdict(*map(float, numbers))))


if __name__ == "__main__":
    main()
