"""Every hot loop of the CPU's kernels is a vector loop: the compilers say so themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import NAMES, ROOT

from fusegen.toolchain.compilers import Compilers

#: Instantiates a kernel for one dtype alone, so that the report is about that dtype.
_ONE_DTYPE = """
#include "fusegen/dtype.h"
namespace fusegen {{
template <class F> void with_one_dtype(DType, F&& f) {{ f({dtype}{{}}); }}
}}
#define with_dtype with_one_dtype
"""
_DTYPES = ("float", "fusegen::bfloat16", "fusegen::float16")
#: What is compiled: compiler, instruction set, dtypes. With avx512 bfloat16 is left out: its conversion is a
#: shift, which is a vector instruction of avx2 too.
_BUILDS = (
    ("g++", "portable", _DTYPES[:1]),
    ("g++", "avx2", _DTYPES),
    ("g++", "avx512", (_DTYPES[0], _DTYPES[2])),
    ("clang++", "avx2", _DTYPES),
)
_REPORT = {
    "g++": ("-fopt-info-vec-all", "--param=vect-epilogues-nomask=0"),
    "clang++": ("-Rpass=loop-vectorize", "-Rpass-missed=loop-vectorize"),
}
_PRAGMA = re.compile(r"^ *#pragma omp simd")


def hot_loops(source: str) -> list[tuple[int, int, int]]:
    """Return the line of each simd pragma, and the first and last of the loop under it."""
    lines = source.split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        if _PRAGMA.match(line):
            head = next(n for n in range(number, len(lines)) if "for (" in lines[n])
            indent = lines[head][: len(lines[head]) - len(lines[head].lstrip())]
            last = next(n for n in range(head, len(lines)) if lines[n].startswith(f"{indent}}}"))
            found.append((number, head + 1, last + 1))
    return found


def report(compiler: str, kernel: Path, dtype: str, isa: str, folder: Path) -> str:
    """Compile a kernel for one dtype; return what the compiler says of its loops."""
    only = folder / "only.h"
    only.write_text(_ONE_DTYPE.format(dtype=dtype))
    path = shutil.which(compiler)
    assert path is not None
    flags = Compilers(Path(path), None).kernel_flags(isa)
    command = [path, *flags, *_REPORT[compiler]]
    command += ["-include", str(only), "-c", str(kernel), "-o", str(folder / "kernel.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def scalar_loops(found: str, source: Path) -> list[str]:
    """Return the hot loops of a source that a report does not say are vector loops."""
    place = rf"{re.escape(source.name)}:(\d+):\d+: "
    lines = [int(line) for line in re.findall(place + "optimized: loop vectorized", found)]
    # clang names the pragma's line. gcc reports there the loops that set up and add up a reduction.
    pragmas = [int(line) for line in re.findall(place + "remark: vectorized loop", found)]
    return [
        f"{source.parent.name}/{source.name}:{first}"
        for pragma, first, last in hot_loops(source.read_text())
        if pragma not in pragmas and not any(first <= line <= last for line in lines)
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("compiler", "isa", "dtypes"),
    [pytest.param(*build, id="-".join(build[:2])) for build in _BUILDS],
)
def test_every_hot_loop_is_a_vector_loop(
    compiler: str, isa: str, dtypes: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    if compiler != "g++" and shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    kernel = ROOT / "generated" / name / "kernel.cpp"
    assert hot_loops(kernel.read_text())
    for dtype in dtypes:
        found = report(compiler, kernel, dtype, isa, tmp_path)
        assert not scalar_loops(found, kernel), dtype
        # A gather in a loop over neighbours means that the compiler could not tell they are neighbours.
        assert not re.search(r"_(?:gather|scatter)", found), dtype


def test_a_loop_with_a_branch_is_seen_to_be_scalar(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.cpp"
    kernel.write_text(
        "#include <cmath>\n"
        "float slow(const float* x, int n) {\n"
        "  float sum = 0;\n"
        "#pragma omp simd reduction(+ : sum)\n"
        "  for (int i = 0; i < n; ++i) {\n"
        "    sum += std::lgamma(x[i]);\n"
        "  }\n"
        "  return sum;\n"
        "}\n"
    )
    assert hot_loops(kernel.read_text()) == [(4, 5, 7)]
    found = report("g++", kernel, "float", "avx2", tmp_path)
    assert scalar_loops(found, kernel) == [f"{tmp_path.name}/kernel.cpp:5"]
