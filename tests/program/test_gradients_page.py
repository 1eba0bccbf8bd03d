"""docs/gradients.md: the programs that it quotes are those that are derived, and its example runs."""

from __future__ import annotations

import re
from types import ModuleType

from conftest import ROOT, derive

from fusegen.program import describe

PAGE = (ROOT / "docs" / "gradients.md").read_text(encoding="utf-8")


def test_the_quoted_programs_are_derived() -> None:
    (mode,) = derive(ROOT / "specs" / "scale_softmax.yaml").segments[0].modes
    derived = {describe(node) for program in mode.programs[:2] for node in program.nodes()}
    quoted = [
        line.strip()
        for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("  ")
    ]
    assert len(quoted) == 12
    assert set(quoted) <= derived


def test_the_example_runs(generated: ModuleType) -> None:
    del generated  # the packages that it imports
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "gradients.md", "exec"), {})  # noqa: S102 # the page's own
