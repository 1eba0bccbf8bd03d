"""Imports a generated package from any folder."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from fusegen.base import stamp
from fusegen.base.version import FORMAT, __version__
from fusegen.runtime.binaries import find_binaries, remedy
from fusegen.runtime.registered import LOADING

_PARENT = "fusegen_generated"

#: Each package as it was last imported, by its file, with its sources' hash and libraries.
_imported: dict[Path, tuple[object, ModuleType]] = {}


def load_package(name: str, out: Path) -> ModuleType:
    """Import the package `name` in the folder `out`.

    An unchanged package gives the same module again. A rebuilt one gives a new module with its own operators;
    the old module keeps working.

    Raises:
        ImportError: if it was not generated or not compiled, or its library does not match its sources.
    """
    _check_name(name)
    file = (out / name / "__init__.py").resolve()
    if not file.is_file():
        raise ImportError(f"{name}: {file} does not exist; {remedy(file.parent)}")
    qualified = f"{_PARENT}.{name}"
    with LOADING:
        text = file.read_bytes()
        package, made_of = _made_by_this_version(name, text)
        present = find_binaries(package, file.parent, made_of)
        before, module = _imported.get(file, (None, None))
        if module is None or before != present:
            module = _import(qualified, file, text)
            module.__dict__["_repr_markdown_"] = partial(_as_markdown, module, present.dtypes)
            _imported[file] = present, module
        sys.modules.setdefault(_PARENT, ModuleType(_PARENT))  # pickle imports it first
        sys.modules[qualified] = module
    return module


def find_package(name: str, folder: str = "generated") -> Path:
    """Return the folder that contains the package `name`.

    Looks in the working folder and its parents, then beside the program.

    Raises:
        ImportError: if it is in none of them.
    """
    _check_name(name)
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    here = Path.cwd()
    places = [here, *here.parents, *([Path(program).resolve().parent] if program else [])]
    for place in places:
        if (place / folder / name / "__init__.py").is_file():
            return place / folder
    beside = [places[-1]] if program else []
    looked = " and ".join(dict.fromkeys(str(place / folder) for place in (here, *beside)))
    raise ImportError(
        f"{name}: there is no such package in {looked}; run `fusegen build {name}`, or say where it "
        f"was built: load({name!r}, out=...)"
    )


def made_by(version: str, package: str, made_of: str, form: int = 1) -> None:
    """Check that this version of fusegen generated a package, since the package calls its runtime.

    Args:
        version: the version that generated it.
        package: its name.
        made_of: a hash of all its files; `load_package` reads it from this call.
        form: the package's format (`FORMAT` in base/version.py).

    Raises:
        ImportError: if it was another version, or another state of this one, whose packages have another
            format.
    """
    _check(stamp.MadeBy(version, package, made_of, form))


def _check(said: stamp.MadeBy) -> None:
    wrong = said.misfit(__version__, FORMAT)
    if wrong:
        other = "" if said.version == __version__ else f", or install fusegen {said.version}"
        raise ImportError(f"{said.package}: {wrong}; run `fusegen build {said.package}`{other}")


def _as_markdown(module: ModuleType, dtypes: Iterable[str]) -> str:
    """Return what a notebook shows of a package: its docstring, whose example is a block of code."""
    title, _, text = (module.__doc__ or module.__name__).partition("\n")
    return f"**{title}**\n{text}\n\nBuilt for {', '.join(dtypes)}; `{module.__file__}`"


def _check_name(name: str) -> None:
    if not name.isidentifier():
        raise ImportError(
            f"{name!r} is not a package's name: give the spec's name without .yaml, and the folder in out="
        )


def _made_by_this_version(name: str, text: bytes) -> tuple[str, str]:
    """Return a package's name and hash from its call of `made_by`, which is checked here too."""
    said = stamp.made_by(text.decode(errors="replace"))
    if said is None:
        raise ImportError(
            f"{name}: this is not a package of fusegen {__version__}; run `fusegen build {name}`"
        )
    _check(said)
    return said.package, said.made_of


class _Read(SourceFileLoader):
    """Runs the text that was read. Python's cache could be of an older file with the same size and second."""

    def __init__(self, name: str, file: Path, text: bytes) -> None:
        super().__init__(name, str(file))
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the text."""
        del fullname  # there is one
        return self.source_to_code(self._text, self.path)


def _import(qualified: str, file: Path, text: bytes) -> ModuleType:
    loader = _Read(qualified, file, text)
    spec = importlib.util.spec_from_file_location(qualified, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(qualified)
    sys.modules[qualified] = module
    try:
        loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[qualified]
        else:
            sys.modules[qualified] = before
        raise
    return module
