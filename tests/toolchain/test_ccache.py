"""ccache where it is installed: a script stands for it that notes its calls and runs the compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from shared.tiny_packages import ALL, KERNELS, Workshop, answer, kernel

from fusegen.toolchain import ccache, compilers
from fusegen.toolchain.compile_errors import CompileError
from fusegen.toolchain.compilers import Compilers
from fusegen.toolchain.ninja_file import _rule

CCACHE = """#!/bin/sh
echo "$*" >> "{log}"
exec "$@"
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    shop = Workshop(tmp_path, monkeypatch)
    for variable in ("FUSEGEN_CCACHE", "CCACHE_DISABLE", "FUSEGEN_NATIVE"):
        monkeypatch.delenv(variable, raising=False)
    return shop


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of the calls of a ccache, which is on PATH; its folder has a name that a shell could split."""
    program = tmp_path / "a bin" / "ccache"
    program.parent.mkdir()
    log = tmp_path / "ccache.log"
    program.write_text(CCACHE.format(log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    log.touch()
    return log


def test_it_compiles_kernels_and_bindings(shop: Workshop, calls: Path) -> None:
    assert set(shop.build(shop.spec("a", kernel(7)))["a"].compiled) == ALL
    assert answer(shop.out / "a" / "_cpu.so") == 7
    lines = calls.read_text().splitlines()
    gxx = str(compilers.find_compilers().cxx)
    assert all(line.split()[0] == gxx for line in lines)  # the compiler is what it was
    compiled = sorted(line.split(" -c ")[1].split()[0] for line in lines)
    assert compiled == sorted([str(shop.shared), "a/binding.cpp", *["a/kernel.cpp"] * len(KERNELS)])


@pytest.mark.parametrize(("variable", "value"), [("FUSEGEN_CCACHE", "0"), ("CCACHE_DISABLE", "1")])
def test_it_can_be_turned_off_and_on_again_without_compiling(
    variable: str, value: str, shop: Workshop, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = shop.spec("a", kernel(1))
    monkeypatch.setenv(variable, value)
    assert shop.build(a)["a"].compiled
    assert calls.read_text() == ""
    monkeypatch.delenv(variable)
    assert shop.build(a)["a"].compiled == ()


def test_without_it_the_compiler_is_called_alone(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ccache, "find_ccache", lambda: None)
    monkeypatch.setenv(
        "FUSEGEN_COMPILER_LAUNCHER", "/no/such/program"
    )  # as another build may set it
    assert shop.build(shop.spec("a", kernel(3)))["a"].compiled


def test_a_compiler_that_is_ccache_gets_no_other_in_front(tmp_path: Path, calls: Path) -> None:
    """As in /usr/lib/ccache, which some put on PATH: ccache refuses to run itself."""
    masked = tmp_path / "g++"
    masked.symlink_to(Path(shutil.which("ccache") or ""))
    real = Path("/usr/bin/g++")
    assert list(ccache.environment([real]).values()) == [shutil.which("ccache")]
    assert list(ccache.environment([real, masked]).values()) == [""]
    assert calls.exists()


def test_what_only_ninja_needs_is_no_argument(shop: Workshop, calls: Path) -> None:
    """A comment in a spec changes a source's hash, with which ccache could not find the object."""
    for comment in ("one", "another"):
        calls.write_text("")
        shop.build(shop.spec("a", f"// {comment}\n{kernel(1)}"))
        kernels = [line for line in calls.read_text().splitlines() if "a/kernel.cpp" in line]
        assert len(kernels) == len(KERNELS)
        if comment == "one":
            before = sorted(kernels)
    assert sorted(kernels) == before


def test_nvcc_is_started_by_it_too(tmp_path: Path) -> None:
    """The command of a CUDA source, run by a shell with echo for nvcc."""
    nvcc = Compilers(Path("/usr/bin/g++"), Path("/there/nvcc"))
    command = _rule("kernel_cuda", " ".join(["/there/nvcc", *nvcc.cuda_flags(["90"])]), "")[1]
    shell = command.partition(" = ")[2].replace("$$", "$").replace("$sources", "0")
    launched = {"FUSEGEN_COMPILER_LAUNCHER": "echo"}
    done = subprocess.run(
        ["sh", "-c", shell], env=launched, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("/there/nvcc -O3 ")
    assert "-ccbin=/usr/bin/g++" in done.stdout


def test_where_ccache_fails_the_error_says_how_to_do_without(shop: Workshop, calls: Path) -> None:
    program = Path(shutil.which("ccache") or "")
    program.write_text("#!/bin/sh\necho 'ccache: error: Permission denied' >&2\nexit 1\n")
    assert calls.exists()
    with pytest.raises(CompileError, match="FUSEGEN_CCACHE=0 builds without ccache"):
        shop.build(shop.spec("a", kernel(1)))


def test_native_objects_name_their_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-march=native` is the same on every machine, and several may share one cache."""
    monkeypatch.setenv("FUSEGEN_NATIVE", "1")
    monkeypatch.delenv("FUSEGEN_CPU", raising=False)
    found = []
    for features in (("avx2",), ("avx2", "avx512f")):
        compilers._machine.cache_clear()
        monkeypatch.setattr(compilers, "features", lambda f=features: f)
        found.append(compilers.cpu_isas()["portable"])
    compilers._machine.cache_clear()
    assert found[0] != found[1]
