"""Measures the first training step of models on the CPU: torch.compile's, and fusegen's.

python benchmarks/cold_start.py RECORD.json [--subjects fusegen] [NAME …]

Each step runs in a process of its own. "first" begins with empty caches. "further" begins with what a small
model left there, such as headers that were compiled. "again" is the same model once more. The time is the
processor's, of the process and of all that it started: the clock's depends on what else the machine does.
What a step in eager takes, imports among it, is subtracted. The record is written after each model.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = ("llama", "gpt", "vit", "resnet")
SUBJECTS = ("inductor", "fusegen")
#: The folder of each cache.
CACHES = {
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "FUSEGEN_MODELS": "models",
    "FUSEGEN_OBJECTS": "objects",
}
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def step(name: str, subject: str) -> None:
    """Run one training step of a model in this process."""
    import torch
    from cold_models import model_of

    model, inputs = model_of(name)
    if subject != "eager":
        model.compile(backend=subject)
    optimizer = torch.optim.AdamW(model.parameters())
    model(*inputs).backward()
    optimizer.step()


def used() -> float:
    """Return the processor's seconds of this process and of those that it waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measured(name: str, subject: str, caches: Path) -> float:
    """Run a step in a process; return the processor's seconds of it and of what it started."""
    places = {variable: str(caches / place) for variable, place in CACHES.items()}
    # One thread: several wait for each other busily where the machine has other work.
    environment = {**os.environ, **places, "CCACHE_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    before = used()
    subprocess.run([sys.executable, __file__, "--step", name, subject], env=environment, check=True)
    while True:  # what it left behind, such as Inductor's workers, is a child of ours now
        try:
            os.wait()
        except ChildProcessError:
            return used() - before


def of_model(name: str, after_tiny: Mapping[str, Path], work: Path) -> dict[str, Any]:
    """Return the seconds of each subject's steps, beside those of eager."""
    eager = min(measured(name, "eager", work) for _ in range(2))
    found: dict[str, Any] = {"eager": eager}
    for subject, left in after_tiny.items():
        caches = work / f"{name}_{subject}"
        first, again = (measured(name, subject, caches) - eager for _ in range(2))
        # In the same place, whose path may be part of a key.
        kept = work / "kept"
        left.rename(kept)
        shutil.copytree(kept, left)
        further = measured(name, subject, left) - eager
        shutil.rmtree(left)
        kept.rename(left)
        found[subject] = {"first": first, "further": further, "again": again}
    return found


def machine() -> str:
    """Return the name and the number of this machine's processors."""
    text = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def measure(path: Path, names: Sequence[str], subjects: Sequence[str]) -> None:
    """Write the record."""
    import torch

    import fusegen

    # What a process leaves behind becomes a child of this one, which waits for it.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    git = ["git", "-C", str(Path(fusegen.__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    record = json.loads(path.read_text()) if path.exists() else {"models": {}}
    record |= {"machine": machine(), "torch": torch.__version__, "commit": commit}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        measured("tiny", "eager", work)  # reads torch from the disk
        after_tiny = {subject: work / f"tiny_{subject}" for subject in subjects}
        for subject, caches in after_tiny.items():
            measured("tiny", subject, caches)
        for name in names:
            found = of_model(name, after_tiny, work)
            record["models"].setdefault(name, {}).update(found)
            path.write_text(json.dumps(record, indent=1) + "\n")
            print(name, json.dumps(found), flush=True)


def main() -> None:
    """Read the command line."""
    if sys.argv[1] == "--step":
        step(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("record", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--subjects", nargs="+", default=SUBJECTS, choices=SUBJECTS)
    given = parser.parse_args()
    measure(given.record, given.names, given.subjects)


if __name__ == "__main__":
    main()
