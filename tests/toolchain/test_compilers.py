"""Which compilers are found, for which GPUs they compile, and with which flags."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from conftest import ROOT

from fusegen.base import paths
from fusegen.base.errors import UserError
from fusegen.toolchain import compilers
from fusegen.toolchain.compilers import Compilers

Program = Callable[[str, str], Path]
_VARIABLES = ("CXX", "CUDA_HOME", "CUDA_PATH")


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What was found on this machine must not answer for another, nor the other way round."""
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    remembered = (compilers.gpu_capabilities, compilers.known_architectures, compilers._gcc_version)
    for function in remembered:
        function.cache_clear()
    yield
    for function in remembered:
        function.cache_clear()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Writes a program that prints a text."""

    def write(name: str, prints: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{prints}\nEND\n")
        path.chmod(0o755)
        return path

    return write


def nvcc_that_knows(program: Program, *architectures: str) -> Path:
    return program("bin/nvcc", "\n".join(f"compute_{a}" for a in architectures))


# C++


def test_cxx_is_honoured(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = program("bin/my-cxx", "")
    monkeypatch.setenv("CXX", str(mine))
    assert compilers.find_compilers().cxx == mine
    monkeypatch.setenv("PATH", str(mine.parent))
    monkeypatch.setenv("CXX", "my-cxx")
    assert compilers.find_compilers().cxx == mine


@pytest.mark.parametrize("name", ["g++", "clang++", "c++"])
def test_any_of_three_compilers_will_do(
    name: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = program(f"bin/{name}", "")
    monkeypatch.setenv("PATH", str(only.parent))
    assert compilers.find_compilers().cxx == only


@pytest.mark.parametrize(
    ("cxx", "sought"), [(None, r"g\+\+, clang\+\+ and c\+\+"), ("no-such-cxx", "CXX=no-such-cxx")]
)
def test_a_missing_compiler_says_what_to_install(
    cxx: str | None, sought: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if cxx:
        monkeypatch.setenv("CXX", cxx)
    with pytest.raises(UserError, match=rf"looked for {sought}.*apt-get install g\+\+"):
        compilers.find_compilers()


def test_kernel_flags_keep_nan_and_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEGEN_NATIVE", "0")
    for isa in compilers.cpu_isas():
        flags = Compilers(Path("g++"), None).kernel_flags(isa)
        assert {"-O3", "-fopenmp-simd", "-fvisibility=hidden"} <= set(flags)
        assert "-march=native" not in flags  # a package moves between machines
        loose = ("-ffast-math", "-Ofast", "-ffinite-math-only", "-funsafe-math-optimizations")
        assert not set(loose) & set(flags)
        assert not any("torch" in flag for flag in flags)  # a kernel includes no header of torch


@pytest.mark.parametrize(
    ("machine", "isas"),
    [("x86_64", ["portable", "avx2", "avx512"]), ("AMD64", ["portable", "avx2", "avx512"])]
    + [(machine, ["portable"]) for machine in ("aarch64", "arm64", "riscv64")],
)
def test_isas_are_those_of_the_processor(
    machine: str, isas: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setenv("FUSEGEN_NATIVE", "0")
    assert list(compilers.cpu_isas()) == isas
    flags = Compilers(Path("g++"), None).kernel_flags("portable")
    assert any(flag.startswith("-m") for flag in flags) is (len(isas) > 1)


def test_a_native_build_has_the_instructions_that_fusegen_cpu_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a package that was built for one machine alone could not be tried with fewer."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("FUSEGEN_NATIVE", "0")
    every = {isa: set(flags) for isa, flags in compilers.cpu_isas().items()}
    monkeypatch.delenv("FUSEGEN_NATIVE")
    assert "-march=native" in compilers.cpu_isas()["portable"]
    for isa, wanted in every.items():
        monkeypatch.setenv("FUSEGEN_CPU", isa)
        assert set(compilers.cpu_isas()["portable"]) == wanted | {"-DFUSEGEN_NATIVE"}
    monkeypatch.setenv("FUSEGEN_CPU", "avx1024")
    with pytest.raises(UserError, match="avx1024: expected portable, avx2 or avx512"):
        compilers.cpu_isas()


@pytest.mark.parametrize(
    ("says", "version", "wanted"),
    [
        ("Free Software Foundation", "12", {"-fno-tree-sink"}),
        ("Free Software Foundation", "13.3.0", {"-fno-tree-sink", "-fno-thread-jumps"}),
        ("Free Software Foundation", "14", {"-fno-tree-sink"}),
        ("clang", "13.0.1", set()),
    ],
)
def test_gcc_alone_gets_what_gcc_alone_needs(
    says: str, version: str, wanted: set[str], program: Program
) -> None:
    cxx = program("c++", says)
    cxx.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{says}" || echo "{version}"\n')
    flags = set(Compilers(cxx, None).kernel_flags("portable"))
    assert flags & {"-fno-tree-sink", "-fno-thread-jumps"} == wanted


def test_the_compiler_takes_the_kernel_flags(tmp_path: Path) -> None:
    source = tmp_path / "kernel.cpp"
    source.write_text("int kernel() { return __FINITE_MATH_ONLY__; }\n#pragma omp unknown\n")
    found = compilers.find_compilers()
    flags = [*found.kernel_flags("portable"), "-Werror"]
    command = [str(found.cxx), *flags, "-c", str(source), "-o", str(tmp_path / "k.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# torch


def test_torch_is_found_without_importing_it() -> None:
    code = (
        "import sys; from fusegen.toolchain import compilers; root = compilers.torch_root()\n"
        "assert 'torch' not in sys.modules; import torch; print(root == __import__('pathlib')"
        ".Path(torch.__file__).parent)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr
    assert (compilers.torch_includes()[0] / "torch/csrc/stable/library.h").is_file()


def test_without_torch_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    compilers.torch_root.cache_clear()
    with pytest.raises(UserError, match="pip install torch"):
        compilers.torch_root()


def test_a_binding_includes_no_header_of_torch() -> None:
    found = Compilers(Path("g++"), None)
    for device, other in (("cpu", "cuda"), ("cuda", "cpu")):
        binding, shared = found.binding_flags(device), found.shared_flags(device)
        assert not [f for f in binding if f.startswith("-isystem")]
        assert [f for f in shared if f.startswith("-isystem")] == [
            f"-isystem{compilers.torch_includes()[0]}"
        ]
        for flags in (binding, shared):
            assert {f"-DFUSEGEN_{device.upper()}", f"-I{paths.include()}"} <= set(flags)
            assert f"-DFUSEGEN_{other.upper()}" not in flags
        assert "-DTORCH_TARGET_VERSION=0x020b000000000000" in shared
        assert ("-DUSE_CUDA" in shared) is (device == "cuda")


def test_what_bindings_share_depends_on_sources_compiler_and_torch(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    gxx = program("bin/g++", "")
    torch = gxx.parent / "version.py"
    monkeypatch.setattr(compilers, "torch_root", lambda: torch.parent)
    torch.write_text("2.11.0")

    nvcc = program("bin/nvcc", "")

    def key(sources: str = "a hash", *, cuda: bool = False) -> str:
        return Compilers(gxx, nvcc).shared_key(sources, cuda=cuda)

    found = [key(), key("another")]
    gxx.write_text("another version")
    found.append(key())
    torch.write_text("2.13.0")
    found += [key(), key(cuda=True)]
    nvcc.write_text("another version")
    found.append(key(cuda=True))
    assert len(set(found)) == len(found)
    assert key() == found[3]  # C++ alone does not depend on nvcc


# CUDA


def test_nvcc_is_sought_in_order(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    home, other, on_path = (program(f"{n}/bin/nvcc", "") for n in ("home", "other", "path"))
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert compilers.find_nvcc() == on_path
    monkeypatch.setenv("CUDA_PATH", str(other.parent.parent))
    assert compilers.find_nvcc() == other
    monkeypatch.setenv("CUDA_HOME", str(home.parent.parent))
    assert compilers.find_nvcc() == home
    monkeypatch.setenv("CUDA_HOME", "/no/toolkit/here")
    assert compilers.find_nvcc() == other


@pytest.mark.parametrize(
    ("printed", "capabilities"),
    [
        ("9.0", ("90",)),
        ("9.0\n9.0\n8.0", ("80", "90")),
        ("12.0\n9.0", ("90", "120")),
        ("No devices were found", ()),
        ("[N/A]", ()),
    ],
)
def test_gpus_are_asked_of_the_driver(
    printed: str,
    capabilities: tuple[str, ...],
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smi = program("bin/nvidia-smi", printed)
    monkeypatch.setenv("PATH", str(smi.parent))
    assert compilers.gpu_capabilities() == capabilities


def test_a_driver_that_fails_is_no_gpu(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = program("bin/nvidia-smi", "9.0")
    smi.write_text(smi.read_text() + "exit 9\n")
    monkeypatch.setenv("PATH", str(smi.parent))
    assert compilers.gpu_capabilities() == ()


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [
        (["90"], ("90",)),
        (["sm_90"], ("90",)),
        (["compute_90"], ("90",)),
        (["9.0"], ("90",)),
        (["80,90"], ("80", "90")),
        (["90", " 8.0 , sm_90 "], ("90", "80")),
        (["12.0"], ("120",)),
    ],
)
def test_architectures_have_many_spellings(
    requested: Sequence[str], chosen: tuple[str, ...], program: Program
) -> None:
    nvcc = nvcc_that_knows(program, "80", "90", "120")
    assert compilers.architectures(requested, nvcc) == chosen


@pytest.mark.parametrize("word", ["91", "sm_70", "hopper", "90;rm", "-90"])
def test_an_unknown_architecture_names_the_known(word: str, program: Program) -> None:
    nvcc = nvcc_that_knows(program, "80", "90")
    with pytest.raises(UserError, match=rf"--arch {word}: .*nvcc knows 80, 90"):
        compilers.architectures([word], nvcc)


@pytest.mark.parametrize(("present", "chosen"), [(("86",), ("86",)), ((), ("80", "90"))])
def test_the_default_is_the_present_gpu(
    present: tuple[str, ...],
    chosen: tuple[str, ...],
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compilers, "gpu_capabilities", lambda: present)
    nvcc = nvcc_that_knows(program, "80", "86", "90")
    assert compilers.architectures([], nvcc) == chosen


def test_machine_code_for_each_and_ptx_of_the_newest() -> None:
    flags = Compilers(Path("/usr/bin/g++"), Path("nvcc")).cuda_flags(["90", "120", "80"])
    assert [f for f in flags if f.startswith("-gencode")] == [
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_120,code=compute_120",  # 120 is newer than 90, also as text
    ]
    assert "-Xcompiler=-fPIC,-fvisibility=hidden" in flags
    assert "-ccbin=/usr/bin/g++" in flags
    assert "--use_fast_math" not in flags
