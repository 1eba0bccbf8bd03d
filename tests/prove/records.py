"""Records: what was run, when, on which machine, and what came of it."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

import fusegen
from fusegen.toolchain.compilers import find_compilers

ROOT = Path(__file__).resolve().parent.parent.parent
#: Where the committed records are.
FOLDER = Path(__file__).resolve().parent / "records"


def origin(seconds: float) -> dict[str, Any]:
    """Return what every record says of its run."""
    compiler = subprocess.run(
        [find_compilers().cxx, "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    return {
        "seconds": round(seconds),
        "cpu seconds": round(_cpu_seconds()),
        "date": time.strftime("%Y-%m-%d"),
        "commit": os.environ.get("FUSEGEN_COMMIT") or _commit(),
        "machine": _machine(),
        "versions": {
            "fusegen": fusegen.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "compiler": compiler,
        },
    }


def _cpu_seconds() -> float:
    """Return the processor time of this process and of those that it started and that ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _commit() -> str:
    """Return the commit; nothing where the files came without git."""
    if not shutil.which("git"):
        return ""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record, each entry of its lists on a line of its own."""
    parts = []
    for key, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            parts.append(f' "{key}": [\n{rows}\n ]')
        else:
            parts.append(f' "{key}": {json.dumps(value)}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _machine() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{model}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
