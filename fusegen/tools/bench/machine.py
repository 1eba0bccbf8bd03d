"""Describes the machine of a run: chip, driver, versions, command and commit."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from fusegen.base.errors import UserError
from fusegen.toolchain import compilers

#: Folders in which an uncommitted change marks the commit with a +.
_CODE = ("fusegen", "templates", "specs", "generated")


def describe(device: str) -> dict[str, str | None]:
    """Return the record's description of this machine; None for what it does not have.

    Raises:
        UserError: if the device does not exist.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here")
    cuda = device == "cuda"
    return {
        "device": device,
        "chip": _gpu("name") if cuda else _processor(),
        "driver": _gpu("driver_version") if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "torch": torch.__version__,
        "triton": _triton(),
        "python": platform.python_version(),
        "nvcc": _nvcc() if cuda else None,
        "cxx": _said([os.environ.get("CXX", "c++"), "--version"]),
        "threads": str(torch.get_num_threads()),
        "command": shlex.join(["fusegen", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
    }


def _said(command: list[str]) -> str | None:
    """Return the first line that a command prints, or None if it fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split("\n", 1)[0].strip() or None if done.returncode == 0 else None


def _gpu(query: str) -> str | None:
    index = str(torch.cuda.current_device())
    return _said(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "-i", index])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", info.read_text(), re.M) if info.exists() else None
    return found[1] if found else platform.machine()


def _triton() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def _nvcc() -> str | None:
    nvcc = compilers.find_nvcc()
    if nvcc is None:
        return None
    done = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"release ([\d.]+)", done.stdout)
    return found[1] if found else None


def _commit() -> str | None:
    """Return the commit of the checkout that fusegen runs from, with a + if its code has uncommitted changes.

    For files that were copied without their history, FUSEGEN_COMMIT gives the commit.
    """
    if said := os.environ.get("FUSEGEN_COMMIT"):
        return said
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    commit = _said([*git, "log", "-1", "--format=%h"])
    changed = _said([*git, "status", "--porcelain", "--untracked-files=no", "--", *_CODE])
    return commit and commit + ("+" if changed else "")
