"""Faults: builds that are killed or meet a full disk, files that are damaged, builds at once, other versions.

After each, the package must give the right numbers or say what is wrong and what to do, and the next build
must be right. Anything else is wrong: another number, a crash, a traceback of fusegen's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prove.fault_bench import Row, as_text
from prove.faults_of_builds import at_once, compilers, killed, versions
from prove.faults_of_disks import full_disk, read_only
from prove.faults_of_files import damaged, objects, removed

Say = Callable[[str], None]
#: All of them: each takes how often, what draws at random, and a folder, and gives rows.
FAULTS = (killed, damaged, objects, removed, at_once, full_disk, read_only, versions, compilers)


def run(count: int, seed: int, folder: Path, say: Say) -> dict[str, Any]:
    """Return a record of every fault.

    Args:
        count: how many builds are killed, files damaged, and so on.
        seed: of what is drawn at random.
        folder: where packages are built.
        say: where to say how far it is.
    """
    rows: list[Row] = []
    rng = random.Random(seed)
    for fault in FAULTS:
        place = folder / fault.__name__
        for row in fault(count, rng, place):
            rows.append(row)
            say(
                f"{row.fault}: {row.trials} trials, {row.right} right, {row.refused} refused, "
                f"{len(row.wrong)} wrong"
            )
            for text in row.wrong[:5]:
                say(f"  {text[:400]}")
    wrong = [f"{row.fault}: {text}" for row in rows for text in row.wrong]
    return {"seed": seed, "count": count, "rows": as_text(rows), "wrong": wrong}
