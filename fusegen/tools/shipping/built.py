"""Reads built packages, and refuses those that would not work elsewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusegen.base import paths, stamp
from fusegen.base.errors import UserError
from fusegen.base.version import FORMAT, __version__

_CPU, _CUDA = "_cpu.so", "_cuda.so"


@dataclass(frozen=True)
class Built:
    """A package whose libraries are whole, of its sources, and not for one machine alone.

    Args:
        name: the name of its folder, by which it is imported.
        namespace: the namespace of its operators below `torch.ops`.
        folder: where it is.
        dtypes: the dtypes that it was built for.
        architectures: the GPUs that it was built for, such as ("80", "90").
        files: its libraries and its sources.
    """

    name: str
    namespace: str
    folder: Path
    dtypes: tuple[str, ...]
    architectures: tuple[str, ...]
    files: tuple[Path, ...]

    @property
    def code(self) -> str:
        """Its `__init__.py`."""
        return (self.folder / "__init__.py").read_text()

    @property
    def docs(self) -> str:
        """Its docstring."""
        return ast.get_docstring(ast.parse(self.code)) or self.name

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Its libraries."""
        return tuple(path for path in self.files if path.suffix == ".so")


def read_all(given: Sequence[Path]) -> list[Built]:
    """Return the packages in some folders, or of some names in generated/.

    Raises:
        UserError: if one of them cannot be shipped; it says what to do.
    """
    found: dict[str, Built] = {}
    for path in given:
        built = _read(_folder(path))
        other = found.setdefault(built.name, built)
        if other.folder.resolve() != built.folder.resolve():
            raise UserError(
                f"{other.folder} and {built.folder} have one name; rename one of the folders, or write "
                "two wheels"
            )
    return list(found.values())


def _folder(path: Path) -> Path:
    inside = Path("generated") / path
    for folder in (path, inside):
        if (folder / "__init__.py").is_file():
            return folder
    if path.suffix in (".yaml", ".yml"):
        raise UserError(
            f"{path} is a spec: run `fusegen build {path}`, and give the package that it makes, "
            f"generated/{path.stem}"
        )
    raise UserError(f"{path}: there is no package; run `fusegen build {path.name}`")


def _read(folder: Path) -> Built:
    name = folder.resolve().name
    said = stamp.made_by((folder / "__init__.py").read_text(errors="replace"))
    if said is None or not name.isidentifier():
        raise UserError(f"{folder} is not a package that fusegen {__version__} generated")
    package = said.package
    out = "" if folder.resolve().parent.name == "generated" else f" --out {folder.parent}"
    again = f"run `fusegen build {package}{out}`"
    wrong = said.misfit(__version__, FORMAT)
    if wrong:
        raise UserError(f"{folder}: {wrong}; {again}")
    cpu = _checked(folder / _CPU, package, "cpu", again)
    dtypes, libraries = tuple(cpu.dtypes[package]), [folder / _CPU]
    architectures: tuple[str, ...] = ()
    if (folder / _CUDA).exists():
        cuda = _checked(
            folder / _CUDA, package, "cuda", f"{again} with --backend cuda, or remove it"
        )
        if cuda.namespace(package) != cpu.namespace(package):
            raise UserError(
                f"{folder}: {_CUDA} and {_CPU} are of two builds; {again} with --backend cuda"
            )
        architectures = cuda.architectures
        libraries.append(folder / _CUDA)
    sources = [folder / file for file in stamp.SOURCES if (folder / file).is_file()]
    return Built(
        name, cpu.namespace(package), folder, dtypes, architectures, (*sources, *libraries)
    )


def _checked(library: Path, package: str, device: str, again: str) -> stamp.Stamp:
    """Return the stamp of a library that can be shipped."""
    try:
        found = stamp.read(library)
    except FileNotFoundError:
        raise UserError(f"{library.parent} is not compiled; {again}") from None
    except stamp.StampError as error:
        raise UserError(f"{library} {error}; {again}") from None
    if found.features:
        raise UserError(
            f"{library} was built for this machine alone, and may not run on another; {again} with --portable"
        )
    wrong = stamp.misfit(found, device, __version__) or stamp.difference(
        found, package, library.parent, paths.include()
    )
    if wrong:
        raise UserError(f"{library} {wrong}; {again}")
    return found


def glibc_of(libraries: Iterable[Path]) -> str | None:
    """Return the oldest version of glibc that libraries run with, such as "2.29"."""
    needed = [
        (int(major), int(minor))
        for library in libraries
        for major, minor in re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?=[.\0])", library.read_bytes())
    ]
    return "{}.{}".format(*max(needed)) if needed else None
