"""The record of a run: the machine and the cells, as JSON."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fusegen.version import __version__


def machine(device: str) -> dict[str, str]:
    """Return what the times are taken on, and with which command."""
    found = {
        "fusegen": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "command": "fusegen " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        chip, driver = _output(query).split("\n")[0].split(", ")
        found |= {"chip": chip, "driver": driver, "cuda": str(torch.version.cuda)}
        nvcc = shutil.which("nvcc")
        found["nvcc"] = (
            _output([nvcc, "--version"]).split("release ")[1].split(",")[0] if nvcc else ""
        )
    else:
        info = Path("/proc/cpuinfo").read_text()
        found["chip"] = info.split("model name\t: ", 1)[1].split("\n", 1)[0]
        found["threads"] = str(torch.get_num_threads())
        found["vectors"] = torch.backends.cpu.get_cpu_capability()
    return found


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def read(path: Path) -> dict[str, Any]:
    """Return a record."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write(path: Path, machine: dict[str, str], cells: list[dict[str, Any]]) -> None:
    """Write a record, whole or not at all: a line for each cell."""
    lines = ",\n".join("  " + json.dumps(cell) for cell in cells)
    text = f'{{"machine": {json.dumps(machine, indent=1)},\n "cells": [\n{lines}\n ]}}\n'
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
