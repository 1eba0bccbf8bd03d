"""`help(fusegen)` begins with an example that runs, and lists what there is to call."""

from __future__ import annotations

import doctest
import pydoc
import re
from pathlib import Path

import pytest

import fusegen


@pytest.mark.slow
@pytest.mark.usefixtures("native")
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEGEN_MODELS", str(tmp_path))
    assert fusegen.__doc__ is not None
    case = doctest.DocTestParser().get_doctest(fusegen.__doc__, {}, "fusegen", None, 0)
    runner = doctest.DocTestRunner()
    runner.run(case)
    assert runner.summarize() == (0, len(case.examples))
    assert len(case.examples) > 3


def test_it_lists_every_function() -> None:
    text = pydoc.plain(pydoc.render_doc(fusegen))
    assert text.index(">>> import fusegen") < text.index("PACKAGE CONTENTS")
    for name in fusegen.__all__:
        assert name in dir(fusegen)
        assert name.startswith("__") or re.search(rf"\n    (class )?{name}\(", text), name
