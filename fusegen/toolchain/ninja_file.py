"""The ninja file: which source is compiled by which compiler with which flags."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from fusegen.base import paths, stamp
from fusegen.base.dtypes import BYTES, DTYPES, STORED
from fusegen.toolchain import ccache, kept_object
from fusegen.toolchain.compilers import Compilers, cpu_isas
from fusegen.toolchain.source_hash import SourceHashes

#: The libraries of torch that a device's library takes symbols from.
_TORCH_LIBRARIES = {"cpu": ("torch_cpu",), "cuda": ("torch_cpu", "torch_cuda")}

_LAUNCHER = ccache.LAUNCHER.replace("$", "$$")


def ninja_text(
    out: Path,
    packages: Sequence[str],
    compilers: Compilers,
    architectures: Sequence[str],
    dtypes: Sequence[str] = DTYPES,
) -> str:
    """Return the text of `<out>/.build/build.ninja`, run from `<out>`.

    It holds every package under `<out>`, so that ninja's log keeps what other calls built; a call
    names the libraries that it wants.

    Args:
        out: the folder of the packages.
        packages: the packages' names.
        compilers: the compilers.
        architectures: compute capabilities to compile CUDA for; none without CUDA.
        dtypes: the dtypes to compile for, of those that a package has.
    """
    few = [] if len(dtypes) == len(DTYPES) else [f"-DFUSEGEN_DTYPES={'+'.join(dtypes)}"]
    cxx = _joined([str(compilers.cxx)])
    lines = ["ninja_required_version = 1.8", "builddir = .build", ""]
    isas = cpu_isas()
    for isa in isas:
        shown = f"C++  $in {isa}" if len(isas) > 1 else "C++  $in"
        compiler = f"{cxx} {_joined([*compilers.kernel_flags(isa), *few])}"
        lines += _rule(f"kernel_{isa}", compiler, shown)
    lines += _rule("binding_cpu", f"{cxx} {_joined(compilers.binding_flags('cpu'))}", "C++  $in")
    lines += _link_rules(compilers, architectures)
    hashes = SourceHashes(paths.include())
    binding_key = compilers.shared_key(hashes.of(paths.binding()))
    for device in ("cpu", "cuda") if architectures else ("cpu",):
        compiler = _joined([str(compilers.cxx), *compilers.shared_flags(device)])
        lines += _shared(f"binding_{device}", paths.binding(), compiler, binding_key)
    if architectures:
        assert compilers.nvcc is not None
        nvcc = _joined([str(compilers.nvcc), *compilers.cuda_flags(architectures)])
        kernels_key = compilers.shared_key(hashes.of(paths.shared_kernels()), cuda=True)
        for size in sorted(set(BYTES.values())):
            compiler = f"{nvcc} -DFUSEGEN_BYTES={size}"
            lines += _shared(f"kernels_{size}", paths.shared_kernels(), compiler, kernels_key)
        for dtype, stored in STORED.items():
            lines += _rule(
                f"kernel_{dtype}", f"{nvcc} -DFUSEGEN_STORED={stored}", f"CUDA $in {dtype}"
            )
        lines += _rule(
            "binding_cuda", f"{cxx} {_joined(compilers.binding_flags('cuda'))}", "C++  $in"
        )
    for name in packages:
        lines += [f"build .build/{name}/stamp.o: stamp .build/{name}/stamp.cpp"]
        devices = ("cpu", "cuda") if architectures else ("cpu",)
        for device in devices:
            lines += _library(out / name, device, hashes, dtypes)
    return "\n".join(lines)


def _joined(flags: Sequence[str]) -> str:
    return shlex.join(flags).replace("$", "$$")


def _rule(name: str, compiler: str, description: str) -> list[str]:
    return [
        f"rule {name}",
        # The hash is for ninja alone: as an argument it would hide from ccache that only comments changed.
        f"  command = FUSEGEN_SOURCES=$sources {_LAUNCHER} {compiler} -MD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        f"  description = {description}",
        "",
    ]


def _link_rules(compilers: Compilers, architectures: Sequence[str]) -> list[str]:
    """Return the rules that link libraries, each stamped and moved into place when it is whole.

    They are linked against empty stand-ins called as torch's own libraries, which the process that
    loads them has loaded already: linking need not read torch, and a machine without a GPU links for
    one. CUDA's runtime goes inside.
    """
    cxx, nvcc = (_joined([str(path)]) for path in (compilers.cxx, compilers.nvcc))
    stub = f"printf '' | {cxx} -shared -x c++ - -Wl,-soname,$name -o $out"
    lines = ["rule stub", f"  command = {stub}", "  description = STUB $name", ""]
    named = f"{cxx} -fPIC -fvisibility=hidden -c $in -o $out"
    lines += ["rule stamp", f"  command = {named}", "  description = C++  $in", ""]
    stamped = f"{_joined([sys.executable, '-I', '-S', stamp.__file__])} $out.new $stamp"
    linkers = {"cpu": f"{cxx} -shared $objects -Wl,--no-as-needed"}
    if architectures:
        linkers["cuda"] = f"{nvcc} -shared -cudart static $objects -Xlinker --no-as-needed"
    for device, linker in linkers.items():
        said = " ".join([device, *(architectures if device == "cuda" else ())])
        finish = f"-o $out.new && {stamped} {said} && mv -f $out.new $out"
        libraries = " ".join(f"-l{name}" for name in _TORCH_LIBRARIES[device])
        lines += [
            f"rule link_{device}",
            f"  command = {linker} -L.build/stub {libraries} {finish}",
            "  description = LINK $out",
            "",
        ]
    for name in _TORCH_LIBRARIES["cuda" if architectures else "cpu"]:
        lines += [f"build {_stub(name)}: stub", f"  name = lib{name}.so", ""]
    return lines


def _shared(name: str, source: Path, compiler: str, key: str) -> list[str]:
    """Return what makes an object that packages share.

    The command and its key say all that it is compiled from, so no depfile is needed.
    """
    finder = _joined([sys.executable, "-I", "-S", kept_object.__file__])
    return [
        f"rule shared_{name}",
        f"  command = {finder} $key $out {_LAUNCHER} {compiler} -c $in -o $out",
        f"  description = {'CUDA' if source.suffix == '.cu' else 'C++ '} $in",
        "",
        f"build .build/{name}.o: shared_{name} {_escaped(source)}",
        f"  key = {key}",
        "",
    ]


def _shared_objects(device: str, dtypes: Sequence[str]) -> list[str]:
    """Return the objects that libraries for a device and some dtypes share."""
    sizes = sorted({BYTES[dtype] for dtype in dtypes}) if device == "cuda" else []
    return [f".build/{name}.o" for name in (f"binding_{device}", *(f"kernels_{s}" for s in sizes))]


def _escaped(path: Path) -> str:
    """Return a path as ninja reads it in a list of files."""
    return re.sub(r"([$ :])", r"$\1", str(path))


def _stub(library: str) -> str:
    return f".build/stub/lib{library}.so"


def _library(folder: Path, device: str, hashes: SourceHashes, dtypes: Sequence[str]) -> list[str]:
    name = folder.name
    file = "kernel.cpp" if device == "cpu" else "kernel.cu"
    # CUDA's kernels of a dtype are a translation unit: they are compiled side by side.
    own = [dtype for dtype in dtypes_of(folder) if dtype in dtypes]
    units = cpu_isas() if device == "cpu" else own
    compiled = {f"kernel_{unit}": file for unit in units} | {f"binding_{device}": "binding.cpp"}
    lines = []
    for rule, source in compiled.items():
        lines.append(f"build .build/{name}/{rule}.o: {rule} {name}/{source}")
        lines.append(f"  sources = {hashes.of(folder / source)}")
    own_objects = [f".build/{name}/{part}.o" for part in (*compiled, "stamp")]
    objects = " ".join([*own_objects, *_shared_objects(device, own)])
    stubs = " ".join(_stub(library) for library in _TORCH_LIBRARIES[device])
    stamp_file = f".build/{name}/library.json"
    return [
        *lines,
        f"build {name}/_{device}.so: link_{device} {objects} | {stubs} {stamp_file}",
        f"  objects = {objects}",
        f"  stamp = {stamp_file}",
        "",
    ]


def dtypes_of(folder: Path) -> tuple[str, ...]:
    """Return the dtypes that a package is for: those that its form.h names, or all."""
    form = folder / "form.h"
    named = re.search(r"#define FUSEGEN_DTYPES (.*)", form.read_text()) if form.exists() else None
    return tuple(named[1].split(" + ")) if named else DTYPES


def packages_under(out: Path) -> list[str]:
    """Return the names of the packages that lie under a folder.

    A package's name is an identifier; other folders with a binding.cpp are someone else's.
    """
    return sorted(p.parent.name for p in out.glob("*/binding.cpp") if p.parent.name.isidentifier())
