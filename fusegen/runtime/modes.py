"""The modes of a chain by name; a name that is missing is told as a user can understand it."""

from __future__ import annotations

from typing import NoReturn, TypeVar

T = TypeVar("T")


class Modes(dict[str, T]):
    """What a chain's modes have, by "same", or by "train" and "eval"."""

    def __init__(self, package: str) -> None:
        super().__init__()
        self.package = package

    def __missing__(self, mode: str) -> NoReturn:
        raise ValueError(
            f"{self.package}: called in evaluation, but built for training alone (mode: training in its spec)"
        )
