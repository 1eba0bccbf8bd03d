"""Every generated .cu compiles, GPU or not, for the architectures that users have."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import NAMES, ROOT

from fusegen import paths
from fusegen.compilers import find_nvcc, known_architectures

NVCC = find_nvcc()
ARCHITECTURES = [a for a in ("80", "90", "100") if NVCC and a in known_architectures(NVCC)]


@pytest.mark.nvcc
@pytest.mark.skipif(NVCC is None, reason="no nvcc here")
@pytest.mark.parametrize("name", NAMES)
def test_it_compiles(name: str, tmp_path: Path) -> None:
    """One call for all architectures; -O1 to save time, with every warning an error."""
    assert {"80", "90"} <= set(ARCHITECTURES)
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    command = [
        *(str(NVCC), "-std=c++17", "-Xptxas=-O1", "-Werror=all-warnings", *codes),
        *("--threads", "2", f"-I{paths.include()}", "-c"),
        *(str(ROOT / "generated" / name / "kernel.cu"), "-o", str(tmp_path / "kernel.o")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
