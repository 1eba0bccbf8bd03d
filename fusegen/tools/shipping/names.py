"""What a wheel, its version and its packages may be called."""

from __future__ import annotations

import importlib.metadata
import keyword
import re
import sys

from fusegen.base.errors import UserError

#: The folder of a wheel's copy of the runtime. It marks a distribution that `fusegen package` wrote.
RUNTIME = "_fusegen"

#: What is both an identifier of Python and the name of a distribution.
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?")


def check_name(name: str) -> None:
    """Refuse a name that a wheel cannot have, or that something else has.

    Raises:
        UserError: with what would be right.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        likely = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
        right = _NAME.fullmatch(likely) and not keyword.iskeyword(likely)
        raise UserError(
            f"--name {name}: it is what people write after `import`, so letters, digits and underscores"
            f"{f'; did you mean {likely}?' if right else ', such as my_kernels'}"
        )
    if name in sys.stdlib_module_names:
        raise UserError(f"--name {name}: Python has a module of that name; choose another")
    for distribution in _distributions(name):
        files = distribution.files or ()
        if any(file.as_posix() == f"{name}/{RUNTIME}/__init__.py" for file in files):
            continue  # an earlier version of this wheel
        raise UserError(
            f"--name {name}: {distribution.metadata['Name']} {distribution.version}, which is installed "
            "here, has that name, and a wheel would replace it; choose another"
        )


def check_version(version: str) -> None:
    """Refuse what is no version of a distribution.

    Raises:
        UserError: with what would be right.
    """
    from packaging.version import InvalidVersion, Version

    try:
        Version(version)
    except InvalidVersion:
        raise UserError(
            f"--version {version}: write numbers with dots, such as 1.0, 1.2.3 or 2.0rc1"
        ) from None


def _distributions(name: str) -> list[importlib.metadata.Distribution]:
    """Return what is installed under a name: as a distribution, or as a module."""
    named = set(importlib.metadata.packages_distributions().get(name, ()))
    wanted = {_normal(found) for found in {name, *named}}
    return [d for d in importlib.metadata.distributions() if _normal(d.metadata["Name"]) in wanted]


def _normal(name: str | None) -> str:
    return re.sub(r"[-_.]+", "-", name or "").lower()
