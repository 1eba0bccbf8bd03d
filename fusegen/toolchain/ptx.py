"""The PTX of a package's CUDA kernels: what nvcc makes of them for one architecture and dtype."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusegen.base.dtypes import STORED, dtype_named
from fusegen.base.errors import UserError, nearest
from fusegen.toolchain.compile_errors import CompileError
from fusegen.toolchain.compilers import architectures, find_compilers, needed_nvcc

__all__ = ["ptx_of"]

_ENTRY = re.compile(r"^(\.weak |\.visible )?\.entry (\w+)\(", re.MULTILINE)


def ptx_of(
    name: str,
    files: Mapping[str, str],
    dtypes: Sequence[str],
    arch: str | None = None,
    dtype: str | None = None,
) -> str:
    """Return the PTX of a package's kernels; before each is its name as C++ has it.

    Args:
        name: the package's name.
        files: its files.
        dtypes: the dtypes of its spec.
        arch: a GPU architecture, such as "90"; the present GPU's by default, or 90.
        dtype: the dtype, by default float32 if the spec has it.

    Raises:
        UserError: if there is no nvcc, it does not know the architecture, or the spec lacks the dtype.
        CompileError: if nvcc refuses the source.
    """
    compilers = find_compilers()
    nvcc = needed_nvcc(compilers, "--ptx")
    chosen = dtype_named(dtype) if dtype else "float32" if "float32" in dtypes else dtypes[0]
    if chosen not in dtypes:
        raise UserError(
            f"--dtype {chosen}: {name} is for {', '.join(dtypes)}{nearest(chosen, dtypes)}"
        )
    # Without a GPU it would be several, and PTX is of one: the newest.
    code = architectures([arch] if arch else [], nvcc)[-1]
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files.items():
            Path(folder, file).write_text(text)
        flags = [*compilers.cuda_source_flags(), f"-arch=compute_{code}"]
        command = [str(nvcc), "-ptx", *flags, f"-DFUSEGEN_STORED={STORED[chosen]}", "kernel.cu"]
        done = subprocess.run(
            [*command, "-o", "kernel.ptx"], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CompileError(f"nvcc cannot compile {name}:\n{done.stdout}{done.stderr}".rstrip())
        text = Path(folder, "kernel.ptx").read_text()
    return _named(text)


def _named(text: str) -> str:
    """Return PTX with each kernel's name as C++ has it, if binutils are here to read the names."""
    reader = shutil.which("c++filt")
    mangled = [found[2] for found in _ENTRY.finditer(text)]
    if not mangled or reader is None:
        return text
    done = subprocess.run([reader, *mangled], capture_output=True, text=True, check=False)
    names = dict(zip(mangled, done.stdout.splitlines(), strict=False))
    return _ENTRY.sub(lambda found: f"// {names.get(found[2], found[2])}\n{found[0]}", text)
