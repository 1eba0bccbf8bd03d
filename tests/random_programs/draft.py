"""What all generators of programs share: a spec on its way, and how it is told that one is refused."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from fusegen.base.errors import SpecError
from random_programs.program import Program


class CrashError(Exception):
    """A spec that ended in something else than a message: `program` is the spec."""

    def __init__(self, program: Program, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.program = program


class Draft:
    """A spec on its way.

    Args:
        name: the program's name.
        seed: the seed.
        refusals: counts the messages of the steps that were refused.
    """

    def __init__(self, name: str, seed: int, refusals: Counter[str] | None = None) -> None:
        self.rng = random.Random(seed)
        self.name, self.seed = name, seed
        self.refusals = Counter() if refusals is None else refusals
        self.document: dict[str, Any] = {"chain": []}
        self.numbers: dict[str, float] = {}
        self.ended = False

    def refused(self, error: SpecError) -> None:
        """Count the message of a spec that is refused, without the names in it."""
        message = str(error).split(": ", 1)[-1]
        self.refusals[" ".join(w for w in message.split() if "'" not in w)[:90]] += 1
