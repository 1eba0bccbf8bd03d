"""The errors a user can cause. Each is one message that names the place and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """A mistake in what the user gave. The command line prints it without a traceback."""


class SpecError(UserError):
    """A mistake in a spec.

    Args:
        message: what is wrong and what would be right.
        file: the spec, if it came from a file.
        line: the 1-based line of the mistake, if it is known.
    """

    def __init__(self, message: str, file: Path | None = None, line: int | None = None) -> None:
        self.message = message
        self.file = file
        self.line = line
        place = "" if file is None else f"{file}:{line}: " if line else f"{file}: "
        super().__init__(place + message)


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return "; did you mean 'tanh'?" for the closest valid word, else the list of valid words."""
    words = sorted(valid)
    close = get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid here: {', '.join(words)}" if words else ""
