"""Finds and loads the libraries that `fusegen build` put beside a package."""

from __future__ import annotations

import os
from pathlib import Path

import torch

#: What FUSEGEN_CPU may say (fusegen/levels.h).
_LEVELS = ("portable", "avx2", "avx512")

_loaded: dict[str, tuple[Path, bool]] = {}


def load_binaries(package: str, directory: Path) -> bool:
    """Load a package's operators: those of the CPU, and those of CUDA where they are built and usable.

    Returns:
        Whether those of CUDA are loaded.

    Raises:
        ImportError: where nothing was built, or a package of the same name is loaded from elsewhere.
        ValueError: where FUSEGEN_CPU names no instruction set, or FUSEGEN_POOL_MB no size.
    """
    level = os.environ.get("FUSEGEN_CPU")
    if level is not None and level not in _LEVELS:
        raise ValueError(
            f"FUSEGEN_CPU={level}: expected {_LEVELS[0]}, {_LEVELS[1]} or {_LEVELS[2]}"
        )
    pool = os.environ.get("FUSEGEN_POOL_MB")
    if pool is not None and not (pool.isascii() and pool.isdigit() and len(pool) < 8):
        raise ValueError(f"FUSEGEN_POOL_MB={pool}: expected whole MiB, such as 256, or 0 for none")
    before = _loaded.get(package)
    if before is not None:
        if before[0] != directory.resolve():
            raise ImportError(
                f"{package}: a package of this name is already loaded from {before[0]}"
            )
        return before[1]
    cpu, cuda = directory / "_cpu.so", directory / "_cuda.so"
    if not cpu.exists():
        raise ImportError(f"{package}: {cpu} is not there; run `fusegen build` to compile it")
    torch.ops.load_library(cpu)
    has_cuda = cuda.exists() and torch.cuda.is_available()
    if has_cuda:
        torch.ops.load_library(cuda)
    _loaded[package] = directory.resolve(), has_cuda
    return has_cuda
