"""Which worker of pytest-xdist has which tests, and in what order.

The marks `xdist_group` do nothing with pytest 9.2 and pytest-xdist 3.8: pytest's node ids no longer change.
"""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

#: Files whose tests share what only one worker should make.
WHOLE = {
    f"test_{name}.py"
    for name in (
        *(
            "build",
            "commands",
            "complements",
            "constant_shapes",
            "distributed",
            "empty_means",
            "every_number",
        ),
        *("extremes", "masks", "operand_shapes", "powers", "reduced_results", "reload", "scales"),
        *("mixed_dtypes", "stamps", "submodules"),
    )
}
#: Fixtures that build many packages for all workers.
BUILD = (
    "vocabulary",
    "shaped_packages",
    "segment_packages",
    "built",
    "random_packages",
    "reductions",
)


#: Fixtures that build a package for a test, or some for a file of tests.
BUILDS = {*BUILD, "indexed", "launched", "losses", "measured", "named", "without_cotangents"}
#: Files whose tests compile, or start processes, for longer than the everyday loop can wait.
SLOW = {
    f"test_{name}.py"
    for name in (
        *(
            "adding_an_op",
            "bench",
            "broken_builds",
            "classes",
            "compile",
            "strided",
            "halves",
            "isas",
            "kept_object",
            "names",
            "new_atom",
        ),
        *("packaging", "pool", "read_in_place", "read_policy", "readme", "several_extremes"),
        *("shapes", "signature", "vectorised"),
    )
}


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a worker one test after the other, and some files as a whole, which come first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if PurePath(file).name in WHOLE else nodeid


def is_left_out(file: Path, marks: str) -> bool:
    """Whether a selection by marks leaves out all of a file, so that it need not be imported."""
    return file.name in WHOLE | SLOW and " or " not in marks and "not slow" in marks.split(" and ")


def mark_slow_ones(items: list[pytest.Item]) -> None:
    """Mark as slow what builds packages other than those of specs/, runs nvcc, or stands in a slow file."""
    for item in items:
        builds = BUILDS.intersection(getattr(item, "fixturenames", ()))
        if builds or item.path.name in WHOLE | SLOW or item.get_closest_marker("nvcc"):
            item.add_marker(pytest.mark.slow)


def start_with_long_ones(items: list[pytest.Item]) -> None:
    """Put a test of each set of packages first, then those of nvcc.

    Each worker then builds a set of its own, and neither waits for the other. None is left alone with a long
    test at the end.
    """
    known: set[object] = set()

    def place(item: pytest.Item) -> int:
        if item.path.name in WHOLE or (
            item.get_closest_marker("gpu") and not torch.cuda.is_available()
        ):
            return 2
        names: list[str] = getattr(item, "fixturenames", [])
        needed = {(item.path, n) if n == "built" else n for n in names if n in BUILD}
        new = needed - known
        known.update(new)
        return 0 if new else 1 if item.get_closest_marker("nvcc") else 2

    items.sort(key=place)
