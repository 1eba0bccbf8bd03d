"""DDP, FSDP2 and DTensor in two processes on the CPU: the checks that run on two GPUs, with gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

CHECKS = [
    "distributed_data_parallel",
    "fully_sharded",
    "models_that_are_captured",
    "submodules_fully_sharded",
    "rows_of_a_dtensor",
    "columns_of_a_dtensor",
    "columns_that_a_row_needs",
    "dropout_of_a_dtensor",
    "device_and_stream",
]


@pytest.fixture(scope="module")
def checks(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert generated.is_dir()
    record = tmp_path_factory.mktemp("distributed") / "record.json"
    command = [sys.executable, "-m", "benchmarks.multi_gpu", str(record), "--backend", "gloo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert record.exists(), done.stderr
    found: dict[str, Any] = json.loads(record.read_text())["checks"]
    assert sorted(found) == sorted(CHECKS)
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_two_processes(name: str, checks: dict[str, Any]) -> None:
    assert checks[name]["passed"], checks[name]["saw"]
    if checks[name]["saw"].startswith("not on this machine"):
        pytest.skip(checks[name]["saw"])
