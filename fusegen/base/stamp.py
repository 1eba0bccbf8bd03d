"""The stamp of a library: what it was compiled from, written after the library's own bytes.

The runtime reads it before it loads the library, so a file that is cut short, foreign or older than its
sources is an error, not a crash. The builder reads it to find what ninja takes to be up to date and is not.
This file needs neither torch nor the rest of fusegen: ninja runs it by itself after each link.

    library | JSON | sha256 of both | length of the JSON | magic
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The files of a package that are compiled, or that say how to call what was.
SOURCES = (
    *("__init__.py", "binding.cpp", "element.h", "form.h"),
    *("kernel.cpp", "kernel.cu", "kernel.h"),
)

#: How a generated `__init__.py` says which version generated it, its name, a hash of all its files, and its
#: format; the first format had no number.
_MADE_BY = re.compile(r'^made_by\("([^"]+)", "(\w+)", "(\w+)"(?:, (\d+))?\)', re.MULTILINE)

_MAGIC = b"fusegen stamp 1\n"
#: The features of an x86 processor that a compiler makes use of.
_FEATURES = re.compile(
    r"(avx|amx|sse|ssse|fma|f16c|bmi|abm|adx|gfni|vaes|vpclmul|sha_|movbe|popcnt)"
)
_LENGTH = 8
_DIGEST = hashlib.sha256().digest_size
_TAIL = _DIGEST + _LENGTH + len(_MAGIC)


class StampError(Exception):
    """A file is no whole library of fusegen. The message says what it is."""


@dataclass(frozen=True)
class Stamp:
    """What a library was compiled from.

    Args:
        device: "cpu" or "cuda".
        fusegen: the version that generated it.
        machine: the architecture, such as "x86_64".
        features: what the processor must have, where it was compiled for one machine alone.
        headers: a hash of fusegen's own headers, and of what packages share.
        packages: of each package in it, a hash of each file by the file's name.
        dtypes: of each package, the dtypes that it was compiled for.
        architectures: the GPUs that it has machine code for, such as ("80", "90"). It has PTX, which newer
            GPUs can run, for the newest of these.
        digest: a hash of the whole file.
    """

    device: str
    fusegen: str
    machine: str
    features: tuple[str, ...]
    headers: str
    packages: Mapping[str, Mapping[str, str]]
    dtypes: Mapping[str, Sequence[str]]
    architectures: tuple[str, ...] = ()
    digest: str = ""

    def describes(self, other: Stamp) -> bool:
        """Return whether the two say the same, whatever files they are in."""
        return self.body() == other.body()

    def body(self) -> dict[str, Any]:
        """Return what is written into the library."""
        return {
            "device": self.device,
            "fusegen": self.fusegen,
            "machine": self.machine,
            "features": list(self.features),
            "headers": self.headers,
            "packages": {name: dict(files) for name, files in self.packages.items()},
            "dtypes": {name: list(dtypes) for name, dtypes in self.dtypes.items()},
            "architectures": list(self.architectures),
        }

    def namespace(self, package: str) -> str:
        """Return the namespace of a package's operators below `torch.ops`.

        It changes with all that the package was compiled from, so that two versions of one package can be
        loaded in a process, and no cache of a compiler takes one for the other.
        """
        made_of = [self.fusegen, self.headers, self.packages[package], [*self.dtypes[package]]]
        said = json.dumps(made_of, sort_keys=True)
        return f"fusegen_{package}_{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def sha(path: Path) -> str:
    """Return a hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def hashes(package: Path) -> dict[str, str]:
    """Return a hash of each of a package's sources that is there, by name."""
    return {name: sha(package / name) for name in SOURCES if (package / name).is_file()}


def headers_hash(include: Path) -> str:
    """Return a hash of fusegen's own headers and of what packages share, which lie in `include`."""
    total = hashlib.sha256()
    for path in sorted(p for p in include.rglob("*") if p.suffix in (".h", ".cuh", ".cpp", ".cu")):
        total.update(f"{path.relative_to(include)}:{sha(path)}\n".encode())
    return total.hexdigest()


def features() -> tuple[str, ...]:
    """Return what this machine's processor has of the features that a compiler makes use of."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux: nothing is known, so nothing is asked for
        return ()
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return tuple(sorted(f for f in flags[1].split() if _FEATURES.match(f))) if flags else ()


def misfit(stamp: Stamp, device: str, version: str) -> str | None:
    """Return why a library cannot run in this process, or None where it can."""
    if stamp.device != device:
        return f"is the library for {stamp.device}"
    if stamp.fusegen != version:
        return f"was built by fusegen {stamp.fusegen}, and this is {version}"
    if stamp.machine != platform.machine():
        return f"was built for {stamp.machine}, and this machine is {platform.machine()}"
    if stamp.features and (missing := sorted({*stamp.features} - {*features()})):
        return (
            "was built for another machine alone, without --portable, and this processor lacks "
            f"{', '.join(missing[:3])}"
        )
    return None


def difference(
    stamp: Stamp, package: str, folder: Path, include: Path, leaving_out: Sequence[str] = ()
) -> str | None:
    """Return how a library differs from the files beside it, or None.

    A package may be shipped without its C++ sources, or without fusegen's headers. Missing files are not
    compared.

    Args:
        stamp: the library's.
        package: the package's name.
        folder: where its files are.
        include: where fusegen's headers are.
        leaving_out: the files of the package that are not compared.
    """
    compiled = stamp.packages.get(package)
    if compiled is None:
        return f"is the library of {', '.join(stamp.packages)}"
    present = hashes(folder)
    changed = [
        name
        for name, digest in present.items()
        if name not in leaving_out and compiled.get(name) != digest
    ]
    if not changed and include.is_dir() and headers_hash(include) != stamp.headers:
        changed = ["fusegen's own headers"]
    return (
        f"was compiled from another {' and '.join(changed)} than there is now" if changed else None
    )


@dataclass(frozen=True)
class MadeBy:
    """What a generated `__init__.py` says of itself.

    Args:
        version: the version of fusegen that generated it.
        package: its name.
        made_of: a hash of all its files.
        form: its format (`FORMAT` in base/version.py).
    """

    version: str
    package: str
    made_of: str
    form: int

    def misfit(self, version: str, form: int) -> str | None:
        """Return why a runtime of this version and format cannot run the package, or None where it can."""
        if self.version != version:
            return f"fusegen {self.version} generated this package, and this is fusegen {version}"
        if self.form != form:
            state = "an older" if self.form < form else "a newer"
            return (
                f"{state} state of fusegen {version} generated this package: it has format {self.form}, "
                f"and this one runs format {form}"
            )
        return None


def made_by(text: str) -> MadeBy | None:
    """Return what a generated `__init__.py` says of itself, or None of another file."""
    call = _MADE_BY.search(text)
    return MadeBy(call[1], call[2], call[3], int(call[4] or 1)) if call else None


def append(library: Path, stamp: Mapping[str, Any]) -> None:
    """Write a stamp after a library's bytes."""
    text = json.dumps(stamp, sort_keys=True).encode()
    whole = library.read_bytes() + text
    with library.open("ab") as file:
        file.write(text + hashlib.sha256(whole).digest())
        file.write(len(text).to_bytes(_LENGTH, "little") + _MAGIC)


def read(library: Path) -> Stamp:
    """Return a library's stamp.

    Raises:
        StampError: where the file is no whole library of this fusegen.
        OSError: where it cannot be read.
    """
    content = memoryview(library.read_bytes())
    if not content:
        raise StampError("is empty")
    if bytes(content[-len(_MAGIC) :]) != _MAGIC:
        if bytes(content[:4]) != b"\x7fELF":
            raise StampError("is no library")
        raise StampError(
            "has no stamp: it is cut short, or this version of fusegen did not build it"
        )
    tail = content[-_TAIL:]
    length = int.from_bytes(tail[_DIGEST : -len(_MAGIC)], "little")
    whole = content[:-_TAIL]
    digest = hashlib.sha256(whole)
    if digest.digest() != tail[:_DIGEST] or length > len(whole):
        raise StampError("is damaged")
    try:
        said = json.loads(bytes(whole[len(whole) - length :]))
        lists = {"features": tuple(said["features"])}
        lists["architectures"] = tuple(said.get("architectures", ()))
        return Stamp(**{**said, **lists}, digest=digest.hexdigest())
    except (ValueError, KeyError, TypeError):
        raise StampError("has the stamp of another version of fusegen") from None


def main() -> None:
    """Append the stamp in a file to a library: `base/stamp.py LIBRARY FILE DEVICE [ARCHITECTURE…]`."""
    library, file, device, *architectures = sys.argv[1:]
    said = json.loads(Path(file).read_text())
    append(Path(library), {**said, "device": device, "architectures": architectures})


if __name__ == "__main__":
    main()
