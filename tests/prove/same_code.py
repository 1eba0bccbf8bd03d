"""Whether packages of many specs are the code that a file says; pytest runs it in a changed tree.

What renders to the same code has the same libraries, so tests of packages cannot fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path

from conftest import ROOT
from shared.vocabulary import vocabulary_texts

from fusegen.toolchain import pipeline

#: The file: a hash for each spec. It is written if there is none.
KNOWN = Path(os.environ["FUSEGEN_KNOWN_CODE"])
FOLDERS = ("specs", "tests/chains", "tests/segments", "tests/random_programs/found")


def texts() -> dict[str, str]:
    """Return the specs, in an order in which a change shows early."""
    found = {p.stem: p.read_text() for f in FOLDERS for p in sorted((ROOT / f).glob("*.yaml"))}
    found |= vocabulary_texts()
    names = list(found)
    random.Random(0).shuffle(names)
    return {name: found[name] for name in names}


def test_packages_are_the_same(tmp_path: Path) -> None:
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else None
    hashes = {}
    for name, text in texts().items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        files = pipeline.render_package(path).files
        files.pop("kernel.cu")  # the CPU's code alone
        hashes[name] = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        if known is not None:
            assert hashes[name] == known[name], name
    if known is None:
        KNOWN.write_text(json.dumps(hashes))
