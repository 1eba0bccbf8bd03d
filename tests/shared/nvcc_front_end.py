"""What nvcc says of a source, in a third of the time that optimized code takes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from fusegen.base import paths
from fusegen.base.dtypes import STORED
from fusegen.toolchain.compilers import find_nvcc

#: The options that keep nvcc from optimizing.
UNOPTIMIZED = ("-O0", "-Xcicc", "-O0", "-std=c++17")


def nvcc_complaints(
    source: Path, architectures: Sequence[str] = ("90",), dtype: str = "float32"
) -> str:
    """Return nvcc's errors and warnings for a .cu, or "" where there are none.

    It makes PTX that is not optimized. The host's code is parsed and its templates are instantiated,
    with every warning, but it is not handed to the C++ compiler.

    Args:
        source: the file.
        architectures: compute capabilities such as "90".
        dtype: the dtype that kernels are compiled for.
    """
    command = [
        *(str(find_nvcc()), *UNOPTIMIZED, "-Werror=all-warnings"),
        f"-DFUSEGEN_STORED={STORED[dtype]}",
        *(f"-gencode=arch=compute_{a},code=compute_{a}" for a in architectures),
        *(f"-I{paths.include()}", "-fatbin", str(source), "-o", str(source.with_suffix(".fatbin"))),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert said or done.returncode == 0
    return said
