"""Many small packages in few libraries: headers are then read once for all of a group."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from fusegen.base.files import write_if_different
from fusegen.toolchain import builder, ccache, pipeline
from fusegen.toolchain.compilers import find_compilers
from fusegen.toolchain.jobs import cores
from fusegen.toolchain.ninja_file import ninja_text
from fusegen.toolchain.ninja_run import find_ninja
from fusegen.toolchain.stamping import write_stamp

#: The dtypes that kernels are computed in, and one of 16 bits: float16 differs from it only in how a number
#: is loaded and stored (templates/include/fusegen/storage.h). The packages of specs/ and of each op try that.
#: Kernels are compiled once for each dtype, so that a quarter of the time is saved.
COMPUTED = ("float64", "float32", "bfloat16")
EVERY = (*COMPUTED, "float16")
#: What g++ does not do for tests at -O1. The same loops become vector loops without it. Kernels for short
#: rows are left out too: the rows of these tests are short, and the other kernels would run for none.
LEFT_OUT = (
    "-DFUSEGEN_SHORT_ROWS=false",
    *("-fno-tree-pta", "-fno-tree-dominator-opts", "-fno-tree-slsr", "-fno-tree-dse"),
    "-fno-thread-jumps",
)
#: The dtypes of all packages, or those of each.
Dtypes = Sequence[str] | Mapping[str, Sequence[str]]


def in_turn(packages: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the dtypes of chains that are many of a kind: float64, with float32 and bfloat16 in turn.

    A chain's code is the same in all dtypes, and float64 shows what is wrong with it; how numbers are loaded,
    computed and stored is the same in all chains of a form. Kernels are compiled once for each dtype, so that
    a third of the time is saved.
    """
    return {
        package: ("float64", ("float32", "bfloat16")[n % 2])
        for n, package in enumerate(sorted(packages))
    }


def build_together(
    folder: Path,
    texts: Mapping[str, str],
    together: int = 12,
    optimize: str = "-O1",
    dtypes: Dtypes = EVERY,
) -> Path:
    """Write specs into a folder, build their packages for the CPU, and return the packages' folder.

    Args:
        folder: where the specs and the packages go.
        texts: the specs' texts, by the packages' names.
        together: how many packages share a library.
        optimize: how far the compiler optimizes kernels. "-O1" takes half of the time of "-O3" and vectorizes
            the loops that have a pragma all the same; most random programs are compiled with "-O3".
        dtypes: the dtypes that kernels are compiled for; a call with another is an error.
    """
    specs, out = folder / "specs", folder / "generated"
    specs.mkdir(parents=True, exist_ok=True)
    for package, text in texts.items():
        (specs / f"{package}.yaml").write_text(text)
        write_package(specs / f"{package}.yaml", out)
    return compile_together(list(texts), out, together, optimize, dtypes)


def build_specs(
    specs: Sequence[Path], out: Path, optimize: str = "-O1", dtypes: Dtypes = EVERY
) -> None:
    """Build packages for each device of this machine, several in one library where there is no GPU.

    Args:
        specs: the spec files.
        out: the folder of the packages.
        optimize: how far the compiler optimizes kernels where there is no GPU, as for `build_together`.
        dtypes: the dtypes that kernels are compiled for where there is no GPU; elsewhere they are all.
    """
    if torch.cuda.is_available():
        builder.build(specs, out=out)
        return
    for spec in specs:
        write_package(spec, out)
    compile_together([spec.stem for spec in specs], out, 10, optimize, dtypes)


def write_package(spec: Path, out: Path) -> None:
    """Render a spec's package into a folder of packages."""
    rendered = pipeline.render_package(spec)
    for file, content in rendered.files.items():
        write_if_different(out / spec.stem / file, content)


def compile_together(
    packages: Sequence[str],
    out: Path,
    together: int = 12,
    optimize: str = "-O1",
    dtypes: Dtypes = EVERY,
) -> Path:
    """Compile packages that are rendered already, and return their folder.

    Args:
        packages: their names.
        out: the folder.
        together: how many packages share a library.
        optimize: how far the compiler optimizes kernels, as for `build_together`.
        dtypes: the dtypes that kernels are compiled for; packages of the same share libraries.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for package in packages:
        chosen = dtypes[package] if isinstance(dtypes, Mapping) else dtypes
        alike.setdefault(tuple(chosen), []).append(package)
    groups = [
        (chosen, some[i : i + together])
        for chosen, some in alike.items()
        for i in range(0, len(some), together)
    ]
    for number, (chosen, group) in enumerate(groups):
        few = "" if chosen == EVERY else f"#define FUSEGEN_DTYPES {'+'.join(chosen)}\n"
        for file, head in (("kernel.cpp", few), ("binding.cpp", "")):
            included = "".join(f'#include "../{package}/{file}"\n' for package in group)
            write_if_different(out / f"group_{number}" / file, head + included)
        for package in group:  # one library holds the operators of all
            (out / package / "_cpu.so").unlink(missing_ok=True)
            (out / package / "_cpu.so").symlink_to(f"../group_{number}/_cpu.so")
        write_stamp(out, f"group_{number}", group)
    names = [f"group_{n}" for n in range(len(groups))]
    compilers = find_compilers()
    manifest = ninja_text(out, names, compilers, ())
    flags = [optimize, *faster(compilers.cxx.name, optimize)]
    manifest = manifest.replace(" -O3 ", f" {' '.join(flags)} ")
    write_if_different(out / ".build" / "build.ninja", manifest)
    # More compilers than cores take a fifth longer in all, and each worker of pytest-xdist builds packages.
    at_once = max(1, cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    command = [find_ninja(), "-f", ".build/build.ninja", "-j", str(at_once)]
    environment = {**os.environ, **ccache.environment([compilers.cxx])}
    done = subprocess.run(
        command, cwd=out, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def faster(compiler: str, optimize: str = "-O3") -> Sequence[str]:
    """Return options that make g++ faster; none for another compiler.

    It frees no memory before it has a gigabyte of it. That changes no code.
    """
    if not compiler.startswith("g++"):
        return ()
    kept = ("--param=ggc-min-heapsize=1000000",)
    return (*kept, *LEFT_OUT) if optimize == "-O1" else kept
