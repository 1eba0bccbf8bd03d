"""Finds and loads the libraries that `fusegen build` put beside a package."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from fusegen.base import paths, stamp
from fusegen.base.shipped import DISTRIBUTION
from fusegen.base.version import __version__
from fusegen.runtime.registered import LOADING, registered

#: The values of FUSEGEN_CPU (fusegen/isa.h).
_ISAS = ("portable", "avx2", "avx512")

#: How often each library was loaded, by its path.
_loaded: dict[Path, int] = {}


@dataclass(frozen=True)
class Binaries:
    """The libraries of a package, which are complete and match the sources beside them.

    Args:
        namespace: the namespace of the package's operators below `torch.ops`.
        cpu, cuda: the libraries; `cuda` is None if it is not built or not usable.
        digests: a hash of each of them.
        dtypes: the dtypes that they are compiled for.
    """

    namespace: str
    cpu: Path
    cuda: Path | None
    digests: tuple[str, ...]
    dtypes: tuple[str, ...]


def find_binaries(package: str, directory: Path, made_of: str) -> Binaries:
    """Return a package's libraries, without loading them.

    Args:
        package: the package's name.
        directory: its folder.
        made_of: a hash of the files that the running Python code was generated with. Another process may have
            built since that code was read, because importing torch takes seconds.

    Raises:
        ImportError: if nothing was built, or a library is damaged, foreign or of other sources.
    """
    python = directory / "__init__.py"
    if python.exists() and f'"{made_of}"' not in python.read_text(errors="replace"):
        raise ImportError(
            f"{package}: {python} was rewritten while it was imported; import it again"
        )
    cpu = directory / "_cpu.so"
    found = _checked(package, cpu, "cpu")
    namespace, dtypes = found.namespace(package), tuple(found.dtypes[package])
    cuda = directory / "_cuda.so"
    if not (cuda.exists() and torch.cuda.is_available()):
        return Binaries(namespace, cpu, None, (found.digest,), dtypes)
    digests = (found.digest, _checked(package, cuda, "cuda").digest)
    return Binaries(namespace, cpu, cuda, digests, dtypes)


def load_binaries(package: str, directory: Path, made_of: str) -> Binaries:
    """Load a package's operators: those of the CPU, and those of CUDA if they are built and usable.

    Raises:
        ImportError: as in `find_binaries`, or if the system does not load a library.
        ValueError: if FUSEGEN_CPU is not an instruction set, or FUSEGEN_POOL_MB not a size.
    """
    isa = os.environ.get("FUSEGEN_CPU")
    if isa is not None and isa not in _ISAS:
        raise ValueError(f"FUSEGEN_CPU={isa}: expected {_ISAS[0]}, {_ISAS[1]} or {_ISAS[2]}")
    pool = os.environ.get("FUSEGEN_POOL_MB")
    if pool is not None and not (pool.isascii() and pool.isdigit() and len(pool) < 8):
        raise ValueError(f"FUSEGEN_POOL_MB={pool}: expected whole MiB, such as 256, or 0 for none")
    with LOADING:
        found = find_binaries(package, directory, made_of)
        # Libraries of the same sources register the same operators, wherever the files are. Registering them
        # twice would end the process.
        known = registered(found.namespace)
        for library in (found.cpu, found.cuda):
            if library is not None and library.name not in known:
                if library != found.cpu or not _loaded_by_others(found.namespace):
                    _load(package, library, found.namespace)
                known.add(library.name)
    return found


def remedy(directory: Path) -> str:
    """Return what makes the package in a folder whole again."""
    if DISTRIBUTION:
        return f"install {DISTRIBUTION} again"
    out = directory.parent
    return (
        f"run `fusegen build {directory.name}{'' if out.name == 'generated' else f' --out {out}'}`"
    )


def _checked(package: str, library: Path, device: str) -> stamp.Stamp:
    """Return the stamp of a library, which fits what lies beside it."""
    folder = library.parent
    build = remedy(folder)
    try:
        found = stamp.read(library)
    except FileNotFoundError:
        raise ImportError(f"{package}: {library} does not exist; {build}") from None
    except OSError as error:
        raise ImportError(f"{package}: {library} cannot be read ({error.strerror})") from None
    except stamp.StampError as error:
        raise ImportError(f"{package}: {library} {error}; {build}") from None
    # `fusegen package` changes the imports of __init__.py.
    changed = ("__init__.py",) if DISTRIBUTION else ()
    wrong = stamp.misfit(found, device, __version__) or stamp.difference(
        found, package, folder, paths.include(), changed
    )
    if wrong:
        raise ImportError(f"{package}: {library} {wrong}; {build}")
    return found


def _loaded_by_others(namespace: str) -> bool:
    """Return whether something else loaded the operators already, such as `torch.ops.load_library`."""
    if not torch.ops.loaded_libraries:
        return False
    names = torch._C._dispatch_get_all_op_names()
    return any(name.startswith(f"{namespace}::") for name in names)


def _load(package: str, library: Path, namespace: str) -> None:
    # The system returns an already loaded library for the same path, even if the file has changed. So each
    # version is loaded by another spelling of the path.
    real = library.resolve()
    place = os.path.join(real.parent, *["."] * _loaded.get(real, 0), real.name)
    try:
        there = ctypes.CDLL(place)
        symbol = (ctypes.c_char * (len(namespace) + 1)).in_dll(
            there, f"fusegen_{package}_operators"
        )
    except (OSError, ValueError) as error:
        raise ImportError(
            f"{package}: {library} cannot be loaded here ({error}); {remedy(library.parent)}"
        ) from error
    _loaded[real] = _loaded.get(real, 0) + 1
    if symbol.value.decode() != namespace:
        raise ImportError(f"{package}: {library} was rebuilt while it was loaded; load it again")
