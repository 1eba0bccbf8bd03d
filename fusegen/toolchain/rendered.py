"""A package in memory. It has a file of its own, so that a process can take it without importing sympy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RenderedPackage:
    """A package in memory.

    Args:
        name: its name.
        files: the text of each of its files, by file name.
        sources: the files of others than fusegen that declare ops or atoms of its chain.
    """

    name: str
    files: Mapping[str, str]
    sources: tuple[Path, ...] = ()
