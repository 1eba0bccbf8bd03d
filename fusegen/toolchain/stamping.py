"""Writes the identity of a library: the part that is linked into it, and the stamp after it."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fusegen.base import paths
from fusegen.base.dtypes import DTYPES
from fusegen.base.files import write_if_different
from fusegen.base.stamp import Stamp, StampError, features, hashes, headers_hash, read
from fusegen.base.version import __version__
from fusegen.toolchain.compilers import is_native
from fusegen.toolchain.ninja_file import dtypes_of


def write_stamp(
    out: Path, library: str, packages: Sequence[str], dtypes: Sequence[str] = DTYPES
) -> Stamp:
    """Write the files for the `stamp` rules in ninja's file, and return the stamp of the CPU's library.

    Args:
        out: the folder of the packages.
        library: the folder in it that gets the library.
        packages: the packages whose operators the library has; usually only `library`.
        dtypes: the dtypes to compile for, of those that a package has.
    """
    stamp = Stamp(
        device="cpu",
        fusegen=__version__,
        machine=platform.machine(),
        features=features() if is_native() else (),
        headers=headers_hash(paths.include()),
        packages={name: hashes(out / name) for name in packages},
        dtypes={name: [d for d in dtypes_of(out / name) if d in dtypes] for name in packages},
    )
    visible = '__attribute__((visibility("default")))'  # runtime/binaries.py looks for it
    named = "".join(
        f"extern {visible} const char fusegen_{name}_operators[];\n"
        f'const char fusegen_{name}_operators[] = "{stamp.namespace(name)}";\n'
        for name in packages
    )
    work = out / ".build" / library
    write_if_different(work / "stamp.cpp", f'extern "C" {{\n{named}}}\n')
    write_if_different(work / "library.json", json.dumps(stamp.body(), indent=1, sort_keys=True))
    return stamp


def fits(library: Path, stamp: Stamp, *, of_any_gpu: bool = False) -> bool:
    """Return whether a library is complete and has this stamp.

    Args:
        library: the library.
        stamp: what it should say.
        of_any_gpu: whether it may be for other GPUs.
    """
    try:
        found = read(library)
    except (StampError, OSError):
        return False
    wanted = replace(stamp, architectures=found.architectures) if of_any_gpu else stamp
    return found.describes(wanted)
