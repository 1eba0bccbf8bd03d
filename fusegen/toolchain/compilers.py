"""Which compilers this machine has, and the flags each kind of source is compiled with.

Nothing here imports torch: a build with nothing to do must not wait for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusegen.base import paths
from fusegen.base.errors import UserError
from fusegen.base.stamp import features

#: torch 2.11, the oldest that the binaries run with (torch/csrc/stable/version.h).
_TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"

_COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden")
#: No -ffast-math: NaN and infinity behave as in eager. The two -fno- flags give up errno and floating
#: point traps alone, without which no loop with a select or a square root becomes a vector loop.
#: No contraction: the code says which products are fused with sums (`fma` in arithmetic.h), so that the same
#: expression has the same bits in every operator.
_KERNEL = ("-O3", "-ffp-contract=off", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math")
#: The instruction sets that a kernel is compiled for, from which the library chooses when it is loaded
#: (templates/include/fusegen/isa.h), each with its flags. A processor that is not x86 has one.
_X86_ISAS = {
    "portable": ("-march=x86-64",),
    "avx2": ("-march=x86-64", "-mavx2", "-mfma"),
    "avx512": (
        *(
            "-march=x86-64",
            "-mavx2",
            "-mfma",
            "-mavx512f",
            "-mavx512bw",
            "-mavx512dq",
            "-mavx512vl",
        ),
        "-mprefer-vector-width=512",
    ),
}
#: Of this machine alone: a third of the time, and libraries that run on no lesser one.
_NATIVE = ("-march=native", "-mprefer-vector-width=512")
_WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unknown-pragmas")


@dataclass(frozen=True)
class Compilers:
    """The compilers of this machine.

    Args:
        cxx: the C++ compiler.
        nvcc: CUDA's compiler, or None.
    """

    cxx: Path
    nvcc: Path | None

    def kernel_flags(self, isa: str) -> list[str]:
        """Return the flags of kernel.cpp, which includes no torch header, for one of `cpu_isas`."""
        chosen = [*cpu_isas()[isa], f"-DFUSEGEN_ISA={isa.capitalize()}"]
        return [
            *_KERNEL,
            *_gcc_flags(self.cxx),
            *chosen,
            *_COMMON,
            *_WARNINGS,
            f"-I{paths.include()}",
        ]

    def binding_flags(self, device: str) -> list[str]:
        """Return the flags of binding.cpp, which includes no torch header, for "cpu" or "cuda"."""
        flags = ["-O1", *_COMMON, f"-I{paths.include()}", f"-DFUSEGEN_{device.upper()}"]
        return [*flags, *(["-DFUSEGEN_NATIVE"] if device == "cpu" and is_native() else [])]

    def shared_flags(self, device: str) -> list[str]:
        """Return the flags of what the bindings for "cpu" or "cuda" share: `paths.binding`."""
        flags = [*self.binding_flags(device), _TORCH_TARGET]
        flags += [f"-isystem{d}" for d in torch_includes()]
        return [*flags, *(["-DUSE_CUDA"] if device == "cuda" else [])]

    def shared_key(self, sources: str, *, cuda: bool = False) -> str:
        """Return a hash of what a command that compiles what packages share does not say.

        Args:
            sources: a hash of the sources.
            cuda: whether they are CUDA's.
        """
        used = (self.cxx, self.nvcc) if cuda else (self.cxx,)
        statuses = [path.resolve().stat() for path in used if path is not None]
        compiled_by = [f"{status.st_size} {status.st_mtime_ns}" for status in statuses]
        torch = (torch_root() / "version.py").read_text()
        return hashlib.sha256("\n".join([sources, *compiled_by, torch]).encode()).hexdigest()[:16]

    def cuda_flags(self, architectures: Sequence[str]) -> list[str]:
        """Return the flags of kernel.cu for compute capabilities such as "90"."""
        codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
        newest = max(architectures, key=int)
        codes.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
        return [*self.cuda_source_flags(), *codes]

    def cuda_source_flags(self) -> list[str]:
        """Return the flags of kernel.cu without those of architectures."""
        host = ["-Xcompiler=-fPIC,-fvisibility=hidden", f"-ccbin={self.cxx}"]
        return ["-O3", "--fmad=false", "-std=c++17", *host, f"-I{paths.include()}"]


def find_compilers() -> Compilers:
    """Return this machine's compilers.

    Raises:
        UserError: where there is no C++ compiler; it says what to install.
    """
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else ("g++", "clang++", "c++"):
        found = shutil.which(name)
        if found:
            return Compilers(Path(found).absolute(), find_nvcc())  # ninja runs elsewhere
    sought = f"CXX={wanted}" if wanted else "g++, clang++ and c++"
    raise UserError(
        f"no C++ compiler found (looked for {sought} on PATH); install one, for example "
        "`apt-get install g++`, or name one in CXX"
    )


def needed_nvcc(compilers: Compilers, option: str) -> Path:
    """Return CUDA's compiler, which an option of a command needs.

    Raises:
        UserError: if there is none; it says where it was looked for.
    """
    if compilers.nvcc is None:
        raise UserError(
            f"{option}: nvcc was not found (looked in CUDA_HOME, CUDA_PATH, PATH and /usr/local/cuda); "
            "install the CUDA toolkit"
        )
    return compilers.nvcc


def find_nvcc() -> Path | None:
    """Return CUDA's compiler from CUDA_HOME, CUDA_PATH, PATH or /usr/local/cuda."""
    for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if root and (Path(root) / "bin" / "nvcc").exists():
            return (Path(root) / "bin" / "nvcc").absolute()
    found = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    return Path(found).absolute() if found else None


@functools.cache
def gpu_capabilities() -> tuple[str, ...]:
    """Return the compute capabilities of this machine's GPUs, such as ("90",)."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return ()
    query = [smi, "--query-gpu=compute_cap", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    found = (
        re.findall(r"^(\d+)\.(\d+)\s*$", done.stdout, re.MULTILINE) if done.returncode == 0 else []
    )
    return tuple(sorted({major + minor for major, minor in found}, key=int))


def architectures(requested: Sequence[str], nvcc: Path) -> tuple[str, ...]:
    """Return compute capabilities such as "90", from "90", "9.0", "sm_90" or "80,90".

    Without a request they are those of the present GPUs, and 80 and 90 where there is none.

    Raises:
        UserError: where nvcc does not know one.
    """
    words = [w.strip() for text in requested for w in text.split(",") if w.strip()]
    if not words:
        return gpu_capabilities() or ("80", "90")
    known = known_architectures(nvcc)
    chosen = []
    for word in words:
        number = re.sub(r"^(sm_|compute_)", "", word).replace(".", "")
        if number not in known:
            raise UserError(f"--arch {word}: {nvcc} knows {', '.join(known)}")
        chosen.append(number)
    return tuple(dict.fromkeys(chosen))


@functools.cache
def known_architectures(nvcc: Path) -> tuple[str, ...]:
    """Return the compute capabilities that nvcc compiles for."""
    done = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False)
    return tuple(re.findall(r"^compute_(\d+)\s*$", done.stdout, re.MULTILINE))


@functools.cache
def torch_root() -> Path:
    """Return torch's folder, without importing torch.

    Raises:
        UserError: where torch is not installed.
    """
    found = importlib.util.find_spec("torch")
    if found is None or not found.submodule_search_locations:
        raise UserError("torch is not installed; `pip install torch` (2.11 or later)")
    return Path(found.submodule_search_locations[0])


def torch_includes() -> list[Path]:
    """Return the folders of torch's headers."""
    return [torch_root() / "include"]


def _gcc_flags(cxx: Path) -> list[str]:
    """Return what gcc alone needs.

    It moves a load into the only branch that needs it, and makes no vectors of those. Version 13 splits a sum
    of selected numbers into branches and, making vectors of these, adds up what was not selected too (seen
    with 13.3; 12.2 and 14.2 are right): second_derivative_of_selected_numbers.yaml in tests/random_programs.
    """
    version = _gcc_version(cxx)
    if version is None:
        return []
    return ["-fno-tree-sink", *(["-fno-thread-jumps"] if version == 13 else [])]


@functools.cache
def _gcc_version(cxx: Path) -> int | None:
    """Return gcc's major version, or None of another compiler."""
    said, version = (
        subprocess.run([cxx, flag], capture_output=True, text=True, check=False).stdout
        for flag in ("--version", "-dumpversion")
    )
    major = version.split(".")[0].strip()
    return int(major) if "Free Software Foundation" in said and major.isdigit() else None


def cpu_isas() -> dict[str, tuple[str, ...]]:
    """Return the instruction sets to compile kernels for, each with its flags, the least first.

    There is one, of this machine or that `FUSEGEN_CPU` names, unless `FUSEGEN_NATIVE=0` asks for all.

    Raises:
        UserError: where `FUSEGEN_CPU` names none.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return {"portable": ()}
    if not is_native():
        return _X86_ISAS
    asked = os.environ.get("FUSEGEN_CPU")
    if asked is not None and asked not in _X86_ISAS:
        raise UserError(f"FUSEGEN_CPU={asked}: expected portable, avx2 or avx512")
    if asked:
        return {"portable": (*_X86_ISAS[asked], "-DFUSEGEN_NATIVE")}
    return {"portable": (*_NATIVE, f"-DFUSEGEN_NATIVE={_machine()}")}


@functools.cache
def _machine() -> str:
    """Return a hash of what this machine's processor has, which `-march=native` does not say.

    A cache of objects that several machines share, as ccache's may be, must not take one for another.
    """
    return hashlib.sha256(" ".join(features()).encode()).hexdigest()[:12]


def is_native() -> bool:
    """Return whether kernels are compiled for this machine alone, which takes a third of the time."""
    return os.environ.get("FUSEGEN_NATIVE") != "0"


@contextlib.contextmanager
def for_every_machine() -> Iterator[None]:
    """Compile for every processor of this architecture: kernels for each instruction set."""
    before = os.environ.get("FUSEGEN_NATIVE")
    os.environ["FUSEGEN_NATIVE"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["FUSEGEN_NATIVE"]
        else:
            os.environ["FUSEGEN_NATIVE"] = before
