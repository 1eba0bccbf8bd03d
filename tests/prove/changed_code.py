"""Which packages' code a change of fusegen changes; pytest runs it in a changed tree.

What renders to the same code has the same libraries, so tests of packages cannot fail. Of the packages
whose code is another, tests of a few are run first.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from conftest import ROOT
from random_programs.generate import Generator
from shared.vocabulary import ALL, packages, vocabulary_texts

from fusegen.toolchain import pipeline

#: A file: the text and a hash of the code of each spec. It is written if there is none.
KNOWN = Path(os.environ.get("FUSEGEN_KNOWN_CODE", "known_code.json"))
#: A file: the first packages whose code is another.
CHANGED = Path(os.environ.get("FUSEGEN_CHANGED_CODE", "changed_code.json"))
#: How many are looked for.
FEW = 4
FOLDERS = ("tests/chains", "tests/segments", "tests/random_programs/found")
#: Of the random programs that tests/values/test_random_programs.py runs.
SEEDS = range(10)
_OF_FOLDERS = (
    *("tests/kernels/test_shapes.py", "tests/values/test_public_chains.py"),
    *("tests/chain/test_segments.py", "tests/values/test_random_programs.py"),
)


def texts() -> dict[str, str]:
    """Return the specs, in an order in which a change shows early; those of ops alone come last."""
    found = {p.stem: p.read_text() for f in FOLDERS for p in sorted((ROOT / f).glob("*.yaml"))}
    found |= {f"random_{seed}": Generator(f"random_{seed}", seed).program().text for seed in SEEDS}
    alone = vocabulary_texts()
    rng = random.Random(0)
    return {n: each[n] for each in (found, alone) for n in rng.sample(sorted(each), len(each))}


def arguments_for(names: Iterable[str]) -> list[str]:
    """Return pytest's arguments for the tests of some packages, each of which builds these alone."""
    ops = {package: op for op in ALL for package in packages(op)}
    words: dict[str, None] = {}
    files: dict[str, None] = {}
    for name in names:
        word = ops.get(name, name)
        words |= {f"[{word}]": None, f"[{word}-": None}
        files |= dict.fromkeys(["tests/ops/test_vocabulary.py"] if name in ops else _OF_FOLDERS)
    return [*files, "-k", " or ".join(words)]


def _changed(known: dict[str, tuple[str, str]], folder: Path) -> Iterator[str]:
    """Yield the packages whose code is another, or can no longer be generated."""
    for name, (text, code) in known.items():
        try:
            if _code(name, text, folder) != code:
                yield name
        except Exception:  # whatever a changed fusegen raises
            yield name


def _code(name: str, text: str, folder: Path) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    files = pipeline.render_package(path).files
    files.pop("kernel.cu")  # the CPU's code alone
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def test_packages_are_the_same(tmp_path: Path) -> None:
    if not KNOWN.exists():
        KNOWN.write_text(json.dumps({n: (t, _code(n, t, tmp_path)) for n, t in texts().items()}))
        return
    found = []
    for name in _changed(json.loads(KNOWN.read_text()), tmp_path):
        found.append(name)
        if len(found) == FEW:
            break
    CHANGED.write_text(json.dumps(arguments_for(found)))
    assert not found
