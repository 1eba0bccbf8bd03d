"""Every hot loop of the CPU's kernels is a vector loop: the compilers say so themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import NAMES, ROOT, render_into
from random_programs.build import faster

from fusegen.base import paths
from fusegen.toolchain.compilers import Compilers, for_every_machine

#: Instantiates a kernel for one dtype alone, so that the report is about that dtype.
_ONE_DTYPE = """
#include "fusegen/storage.h"
namespace fusegen {{
template <class F> void with_one_dtype(DType, F&& f) {{ f({dtype}{{}}); }}
}}
#define with_dtype with_one_dtype
"""
_DTYPES = ("float", "fusegen::bfloat16", "fusegen::float16")
#: What has each function and form once: the others are made of the same.
_SOME = (
    "gated_rms_norm",
    "gemm_batchnorm_scale_softmax",
    "matmul_add_swish_tanh_gelu_hardtanh",
    "matmul_dropout_softmax",
    "swish_tanh_mish",
)
#: Of these, what differs by instruction set: how wide a vector is, and what a function is computed by.
_FEW = ("gated_rms_norm", "matmul_dropout_softmax", "swish_tanh_mish")
#: How 16 bits are loaded and stored is the same in all kernels of a form.
_FORM = ("scale_softmax", "swish_tanh_mish")
#: What is compiled: compiler, instruction set, dtypes, specs. With avx512 bfloat16 is left out: its
#: conversion is a shift, which is a vector instruction of avx2 too.
_BUILDS = (
    ("g++", "portable", _DTYPES[:1], _FEW),
    ("g++", "avx2", _DTYPES[:1], _SOME),
    ("g++", "avx2", _DTYPES[1:], _FORM),
    ("g++", "avx512", _DTYPES[:1], _FEW),
    ("g++", "avx512", _DTYPES[2:], _FORM),
    ("clang++", "avx2", _DTYPES, NAMES),
)
_REPORT = {
    "g++": ("-fopt-info-vec-all", "--param=vect-epilogues-nomask=0"),
    "clang++": ("-Rpass=loop-vectorize", "-Rpass-missed=loop-vectorize"),
}
#: The forms' loops over elements, each in a call of `sweep`, and `sweep` itself.
_FORMS = sorted((paths.include() / "fusegen" / "forms").glob("cpu_*.h"))
_HEAD = re.compile(r"^ *(?:#pragma omp simd|.*\bsweep<)")


def hot_loops(source: str) -> list[tuple[int, int]]:
    """Return the first and last line of each loop over elements: from the pragma or `sweep` to the end."""
    lines = source.split("\n")
    found = []
    for number, line in enumerate(lines):
        if _HEAD.match(line) and not line.startswith("FUSEGEN_FN"):
            indent = line[: len(line) - len(line.lstrip())]
            if line.startswith("#"):
                loop = next(text for text in lines[number:] if "for (" in text)
                indent = loop[: len(loop) - len(loop.lstrip())]
            last = next(
                n for n in range(number + 1, len(lines)) if lines[n].startswith(f"{indent}}}")
            )
            found.append((number + 1, last + 1))
    return found


def report(compiler: str, kernel: Path, dtype: str, isa: str, folder: Path) -> str:
    """Compile a kernel for one dtype; return what the compiler says of its loops."""
    only = folder / "only.h"
    only.write_text(_ONE_DTYPE.format(dtype=dtype))
    path = shutil.which(compiler)
    assert path is not None
    with for_every_machine():
        flags = Compilers(Path(path), None).kernel_flags(isa)
    command = [path, *flags, *_REPORT[compiler], *faster(compiler)]
    command += ["-include", str(only), "-c", str(kernel), "-o", str(folder / "kernel.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def loops_in(found: str, sources: Sequence[Path]) -> tuple[int, list[str]]:
    """Return how many hot loops of some sources became vector loops, and the places of those that did not.

    A template's loop has a line of the report for each time it is instantiated.
    """
    vector, scalar = 0, []
    for source in sources:
        ranges = hot_loops(source.read_text())
        said = re.findall(rf"{re.escape(source.name)}:(\d+):\d+: (.*)", found)
        for line, what in said:
            if not any(first <= int(line) <= last for first, last in ranges):
                continue
            vector += bool(re.match("optimized: loop vectorized|remark: vectorized loop", what))
            if re.match("missed: couldn't vectorize loop|remark: loop not vectorized", what):
                scalar.append(f"{source.name}:{line}")
    return vector, scalar


@pytest.mark.parametrize(
    ("compiler", "isa", "dtype", "name"),
    [
        pytest.param(
            *(compiler, isa, dtype, name),
            id=f"{compiler}-{isa}-{dtype.removeprefix('fusegen::')}-{name}",
        )
        for compiler, isa, dtypes, names in _BUILDS
        for dtype in dtypes
        for name in names
    ],
)
def test_every_hot_loop_is_a_vector_loop(
    compiler: str, isa: str, dtype: str, name: str, tmp_path: Path
) -> None:
    if compiler != "g++" and shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    kernel = ROOT / "generated" / name / "kernel.cpp"
    stages = stages_of(kernel)
    found = report(compiler, kernel, dtype, isa, tmp_path)
    vector, scalar = loops_in(found, _FORMS)
    assert not scalar
    assert vector >= stages
    # A gather in a loop over neighbours means that the compiler could not tell they are neighbours.
    assert not re.search(r"_(?:gather|scatter)", found)


@pytest.mark.parametrize("name", ["conv2d_layer_norm_hardswish", "conv2d_glu_channel_softmax"])
def test_every_loop_over_rows_side_by_side_is_one_too(name: str, tmp_path: Path) -> None:
    """Outer reductions, and numbers of channels: none of specs/ has them."""
    render_into(tmp_path, ROOT / "tests" / "chains" / f"{name}.yaml")
    found = report("g++", tmp_path / "kernel.cpp", "float", "avx2", tmp_path)
    vector, scalar = loops_in(found, _FORMS)
    assert not scalar
    assert vector >= 2 * stages_of(tmp_path / "kernel.cpp")
    assert not re.search(r"_(?:gather|scatter)", found)


def stages_of(kernel: Path) -> int:
    """Return how many stages over elements a package's kernels have; at least one."""
    count = len(re.findall(r"Stage<\s*&", (kernel.parent / "form.h").read_text()))
    assert count
    return count


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
    assert hot_loops(kernel.read_text()) == [(4, 7)]
    found = report("g++", kernel, "float", "avx2", tmp_path)
    _, scalar = loops_in(found, [kernel])
    assert scalar == ["kernel.cpp:6"]


def test_a_stage_with_a_branch_is_seen_to_be_scalar(tmp_path: Path) -> None:
    """The same in a package: no compiler makes vectors of lgamma."""
    source = ROOT / "generated" / "matmul_swish_scale"
    for file in ("kernel.h", "form.h", "kernel.cpp"):
        (tmp_path / file).write_text((source / file).read_text())
    element = (source / "element.h").read_text()
    changed = element.replace("out.y = ", "out.y = T(std::lgamma(double(full.x))) + ")
    assert changed != element
    (tmp_path / "element.h").write_text(changed)
    _, scalar = loops_in(report("g++", tmp_path / "kernel.cpp", "float", "avx2", tmp_path), _FORMS)
    assert scalar
