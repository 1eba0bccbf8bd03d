"""What a program's build says: how far it is, but only if it takes long."""

from __future__ import annotations

import pytest

from fusegen.toolchain import patient
from fusegen.toolchain.patient import Patient


def test_a_short_build_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Patient("1 package of a model")
    for done in range(1, 9):
        progress.step(done, 8, "C++ kernel.cpp")
    assert capsys.readouterr() == ("", "")


def test_a_long_one_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 1.0, 5.0, 6.0, 11.0])
    monkeypatch.setattr(patient.time, "monotonic", lambda: next(now))
    progress = Patient("3 packages of a model")
    for done in range(1, 5):
        progress.step(done, 24, "C++ kernel.cpp")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "fusegen: building 3 packages of a model: step 2 of 24, 5 s",
        "fusegen: building 3 packages of a model: step 4 of 24, 11 s",
    ]
