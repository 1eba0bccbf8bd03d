"""How what `make prove` runs ends: in time, and with an error if it has measured nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from prove.ending import is_empty

RECORDS = sorted((ROOT / "tests" / "prove" / "records").glob("*.json"))
#: A run that would take ten minutes, and so would a process that it starts: both sleep.
HANGS = """
import multiprocessing, time
from prove.ending import end_after
other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
other.start()
print(other.pid, flush=True)
end_after(0.1)
time.sleep(600)
"""


def test_what_hangs_ends_with_an_error_and_says_where() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    other, said = done.stdout.splitlines()
    assert (done.returncode, said) == (1, "not done after 0.1 s")
    assert "line 8 in <module>" in done.stderr
    status = Path(f"/proc/{other}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_of_nothing_is_no_success(path: Path) -> None:
    record = json.loads(path.read_text())
    assert not is_empty(record)
    nothing = {"rows": [dict.fromkeys(row, 0) for row in record.get("rows", ())]}
    lists = {key: [] for key, value in record.items() if isinstance(value, list)}
    assert is_empty(dict.fromkeys(record, 0) | lists | nothing)
