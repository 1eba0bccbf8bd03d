"""One package for every processor of an architecture: the instruction set is chosen when it is loaded."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, python

from fusegen.toolchain.compilers import cpu_isas, for_every_machine

with for_every_machine():
    ISAS = list(cpu_isas())
LIBRARY = ROOT / "generated" / "matmul_dropout_softmax"
#: Prints the isa in use, and the errors of each dtype against float64, forward and backward.
PROGRAM = """
import ctypes, torch
from pathlib import Path
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify
from fusegen.runtime.loading import load_package
package = load_package("matmul_dropout_softmax", Path("generated"))
say = ctypes.CDLL("generated/matmul_dropout_softmax/_cpu.so").fusegen_matmul_dropout_softmax_cpu_isa
say.restype = ctypes.c_char_p
print(say().decode())
chain = pipeline.derive(Path("specs/matmul_dropout_softmax.yaml"))
case = verify.make_case(chain, (7, 1023), training=True)
for dtype in verify.BOUND:
    for error in verify.compare(package, chain, case, dtype):
        print("ok" if error.within else "WRONG", dtype, error)
"""


def run(isa: str | None) -> tuple[str, list[str]]:
    done = python(PROGRAM, **({"FUSEGEN_CPU": isa} if isa else {}))
    assert done.returncode == 0, done.stderr
    used, *lines = done.stdout.splitlines()
    return used, lines


def test_every_isa_is_exact() -> None:
    best, _ = run(None)
    isas = ISAS
    for isa in isas:
        used, errors = run(isa)
        assert used == isas[min(isas.index(isa), isas.index(best))]
        assert len(errors) == 4 * 4
        assert [line for line in errors if not line.startswith("ok")] == [], isa


def test_a_isa_that_is_none_is_named() -> None:
    code = (
        "from pathlib import Path; from fusegen.runtime.loading import load_package\n"
        "load_package('matmul_dropout_softmax', Path('generated'))"
    )
    done = python(code, FUSEGEN_CPU="avx1024")
    assert done.returncode == 1
    assert "FUSEGEN_CPU=avx1024: expected portable, avx2 or avx512" in done.stderr


@pytest.mark.parametrize("isa", ISAS)
def test_no_function_of_one_isa_can_stand_for_another(isa: str) -> None:
    """The linker keeps one of the functions of a name, so a isa's have names of their own."""
    kernel = ROOT / "generated" / ".build" / LIBRARY.name / f"kernel_{isa}.o"
    done = subprocess.run(
        ["nm", "--demangle", "--defined-only", "--extern-only", str(kernel)],
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line.split(maxsplit=2)[2] for line in done.stdout.splitlines()]
    shared = [n for n in names if f"<fusegen::{isa.capitalize()}>" not in n]
    assert len(names) > len(shared)
    assert [n for n in shared if not n.startswith("DW.ref.")] == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks for x86's instructions")
def test_each_isa_has_vectors_of_its_own_width() -> None:
    for isa, wide in (("portable", "xmm"), ("avx2", "ymm"), ("avx512", "zmm")):
        kernel: Path = ROOT / "generated" / ".build" / LIBRARY.name / f"kernel_{isa}.o"
        done = subprocess.run(
            ["objdump", "-d", str(kernel)], capture_output=True, text=True, check=True
        )
        found = {width for width in ("xmm", "ymm", "zmm") if f"%{width}" in done.stdout}
        assert max(found) == wide


def test_huge_pages_change_no_bit() -> None:
    """Asked for or not, from 8 MiB on: the memory is the allocator's, before and after."""
    code = (
        "import torch, hashlib\n"
        "from pathlib import Path\n"
        "from fusegen.runtime.loading import load_package\n"
        "apply = load_package('matmul_swish_scale', Path('generated')).apply\n"
        "x = torch.randn(1100, 2049, generator=torch.Generator().manual_seed(0))\n"
        "for _ in range(3): y = apply(x, torch.ones(2049))\n"
        "print(hashlib.sha256(y.numpy().tobytes()).hexdigest())"
    )
    found = set()
    for wanted in ("0", "1"):
        done = python(code, FUSEGEN_HUGE_PAGES=wanted)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1
