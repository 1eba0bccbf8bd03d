"""Shows that a change leaves the CUDA kernels as they were but for names: hashes of PTX, before and after it.

    python tests/hash_ptx.py before.json    # on the commit before
    python tests/hash_ptx.py after.json     # on the commit after
    python tests/hash_results.py compare before.json after.json

It compiles the kernels of each spec with nvcc to PTX that is not optimized. It hashes the PTX of each
function, with all names replaced by numbers. It needs nvcc and no GPU.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from shared.nvcc_front_end import UNOPTIMIZED

from fusegen.base import paths
from fusegen.toolchain import pipeline
from fusegen.toolchain.compilers import find_nvcc

ROOT = Path(__file__).parents[1]
_NAME = re.compile(r"[A-Za-z_$][\w$]*")
_FUNCTION = re.compile(
    r"^(?:\.visible |\.weak |\.extern )*\.(?:entry|func)\b.*?^\}", re.DOTALL | re.MULTILINE
)


def main() -> None:
    """Write the hashes of the specs that are named, or of all in specs/ and benchmarks/specs/."""
    file, *named = sys.argv[1:]
    specs = [Path(n) for n in named] or [
        p for f in ("specs", "benchmarks/specs") for p in sorted((ROOT / f).glob("*.yaml"))
    ]
    found: dict[str, str] = {}
    for spec in specs:  # what is there is kept, if it ends early
        found |= hashes(spec)
        Path(file).write_text(json.dumps(found, indent=1) + "\n")


def hashes(spec: Path) -> dict[str, str]:
    """Return a hash of each function of a spec's kernels, by its place in the file."""
    package = pipeline.render_package(spec)
    with tempfile.TemporaryDirectory() as folder:
        for name, text in package.files.items():
            (Path(folder) / name).write_text(text)
        ptx = Path(folder) / "kernel.ptx"
        options = (*UNOPTIMIZED, "-arch=compute_90", "-ptx", "-DFUSEGEN_STORED=float")
        command = [
            str(find_nvcc()),
            *options,
            f"-I{paths.include()}",
            f"{folder}/kernel.cu",
            "-o",
            str(ptx),
        ]
        subprocess.run(command, check=True)
        functions = _FUNCTION.findall(ptx.read_text())
    return {
        f"{package.name} function {place}": hashlib.sha256(_unnamed(text).encode()).hexdigest()[:16]
        for place, text in enumerate(functions)
    }


def _unnamed(ptx: str) -> str:
    """Return PTX with each name of C++ as a number, in the order of their first use."""
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        name = match[0]
        if "_Z" not in name and not name.startswith("$"):
            return name
        return numbers.setdefault(name, f"name{len(numbers)}")

    return _NAME.sub(number, ptx)


if __name__ == "__main__":
    main()
