"""A plugin of pytest that writes each test's outcome at once, so that a run cut short leaves what it found.

PYTHONPATH=benchmarks pytest -p outcomes, with FUSEGEN_OUTCOMES naming the file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add a line for a test, and the end of its message where it failed."""
    if os.environ.get("PYTEST_XDIST_WORKER") or (report.when != "call" and report.passed):
        return
    with Path(os.environ["FUSEGEN_OUTCOMES"]).open("a") as file:
        file.write(f"{report.outcome} {report.nodeid} {report.duration:.1f} s\n")
        if report.failed:
            file.write("".join(f"    {line}\n" for line in report.longreprtext[-700:].splitlines()))
