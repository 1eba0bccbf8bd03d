"""Faults in the code: what is changed, and when a test has found it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prove.code_changes import Change, changes
from prove.code_mutants import CHANGED, Area, Mutant, areas, draw, judge, unexplained
from prove.code_tree import Unsound

PYTHON = '''"""Not 1 + 2."""
def f(a: "x < 1", n=3):
    """Not 4 - 5."""
    if a < n and a is not None:  # not 6
        note(a)
        return -a[1:] + n
    raise ValueError(f"not {a + 7}")
'''
CPP = """// not 1 + 2
#pragma omp simd aligned(x : 64)
template <int N = 3, class F>
void f(F&& g, T* out) {
  static_assert(N > 4, "not 5 - 6");
  for (int n = 0; n < N; ++n) {
    if (g(n) && !h(n)) out[n] = -g(n) * 0.5f;
    g(n);
  }
}
"""


def lines(path: str, text: str) -> set[tuple[str, str]]:
    return {(c.kind, c.lines(text)[2]) for c in changes(Path(path), text)}


def test_python_is_changed_where_it_runs() -> None:
    found = lines("a.py", PYTHON)
    assert ("comparison", "if a <= n and a is not None:  # not 6") in found
    assert ("comparison", "if a < n and a is None:  # not 6") in found
    assert ("condition", "if a < n or a is not None:  # not 6") in found
    assert ("condition", "if not (a < n and a is not None):  # not 6") in found
    assert ("number", "return -a[2:] + n") in found
    assert ("sign", "return a[1:] + n") in found
    assert ("operator", "return -a[1:] - n") in found
    assert ("left out", "pass") in found
    assert ("number", 'def f(a: "x < 1", n=2):') in found
    for change in changes(Path("a.py"), PYTHON):
        ast.parse(change.of(PYTHON))
        assert change.of(PYTHON).count("ot ") >= PYTHON.count("ot ") - 1
        assert 'f"not {a + 7}"' in change.of(PYTHON)


def test_cpp_is_changed_where_it_runs() -> None:
    found = lines("a.h", CPP)
    assert ("comparison", "for (int n = 0; n <= N; ++n) {") in found
    assert ("number", "for (int n = 1; n < N; ++n) {") in found
    assert ("condition", "if (g(n) || !h(n)) out[n] = -g(n) * 0.5f;") in found
    assert ("condition", "if (!(g(n) && !h(n))) out[n] = -g(n) * 0.5f;") in found
    assert ("sign", "if (g(n) && h(n)) out[n] = -g(n) * 0.5f;") in found
    assert ("sign", "if (g(n) && !h(n)) out[n] = g(n) * 0.5f;") in found
    assert ("operator", "if (g(n) && !h(n)) out[n] = -g(n) + 0.5f;") in found
    assert ("number", "if (g(n) && !h(n)) out[n] = -g(n) * -0.5f;") in found
    assert ("left out", "") in found
    for change in changes(Path("a.h"), CPP):
        assert change.of(CPP).split("\n")[:4] == CPP.split("\n")[:4], change
        assert "static_assert(N > 4" in change.of(CPP)


def test_a_seed_gives_one_change_of_a_file_of_its_area() -> None:
    known = areas()
    assert {"forms", "passes", "atoms", "calculus", "gpu_forms"} <= known.keys()
    for seed in range(8):
        name, path, change = draw(seed, known)
        assert draw(seed, known) == (name, path, change)
        assert path in known[name].files
        assert change.of(path.read_text()) != path.read_text()


def test_tests_that_are_named_are_there() -> None:
    for area in areas().values():
        for stage in (*area.stages, *area.first.values()):
            if stage == CHANGED:
                continue
            assert stage[0].startswith("tests/")
            for argument in stage:
                if argument.startswith("tests/"):
                    assert Path(argument.split("::")[0]).exists(), argument


class Answers:
    """A tree whose tests answer what is given, with a change and without one."""

    hangs = 60.0

    def __init__(self, changed: Sequence[tuple[Any, str]], unchanged: Any = (0, "")) -> None:
        self.changed_answers, self.unchanged, self.on = iter(changed), unchanged, False
        self.asked: list[list[str]] = []
        self.of_changed: list[str] = []  # the tests of packages whose code is another

    def changed(self, *_: Any) -> Answers:
        return self

    def __enter__(self) -> None:
        self.on = True

    def __exit__(self, *_: object) -> None:
        self.on = False

    def tests_of_changed(self, *_: Any) -> list[str]:
        return self.of_changed

    def run(self, arguments: list[str], _: float) -> tuple[Any, str]:
        self.asked.append(arguments)
        return next(self.changed_answers) if self.on else self.unchanged


def judged(
    tree: Any, stages: Sequence[Sequence[str] | str], ends: float = float("inf"), file: str = "a.py"
) -> Mutant:
    mutant = Mutant(1, "atoms", file, Change(0, 1, "", "sign"))
    area = Area([], stages, {})
    judge(mutant, area.tests(Path("x.py")), tree, Unsound(), ends)
    return mutant


FAILED = (1, "x\nFAILED tests/a.py::test_it[1 of 2] - AssertionError: no\n1 failed in 2 s\n")


def test_a_change_is_found_by_the_first_test_that_fails() -> None:
    found = judged(Answers([(0, ""), FAILED]), [["a"], ["b"], ["c"]])
    assert (found.outcome, found.by) == ("killed", "tests/a.py::test_it[1 of 2]")


def test_a_change_that_no_test_finds_survives_and_must_be_explained() -> None:
    found = judged(Answers([(0, ""), (5, "")]), [["a"], ["b"]])
    assert found.outcome == "survived"
    row = {"outcome": found.outcome, "reason": ""}
    assert unexplained({"mutants": [row, {**row, "reason": "no one can see it"}]}) == [row]


def test_no_package_is_built_where_its_code_is_the_same() -> None:
    tree = Answers([(0, "")])
    found = judged(tree, [["a"], CHANGED, ["b"]])
    assert (found.outcome, found.by) == ("survived", "packages are the same code")


def test_packages_whose_code_is_another_are_tested_first() -> None:
    tree = Answers([(0, ""), (0, ""), FAILED])
    tree.of_changed = ["c", "-k", "relu"]
    assert judged(tree, [["a"], CHANGED, ["b"]]).outcome == "killed"
    assert tree.asked[:3] == [["a"], ["c", "-k", "relu"], ["b"]]


def test_a_test_that_fails_without_the_change_too_finds_nothing() -> None:
    tree = Answers([FAILED, (0, "")], unchanged=(1, "the same"))
    assert judged(tree, [["a"]]).outcome == "survived"
    assert tree.asked[-1] == ["a", "--deselect", "tests/a.py::test_it[1 of 2]"]


def test_what_is_no_code_is_no_fault() -> None:
    assert judged(Answers([(2, "ERROR tests/a.py - NameError")]), [["a"]]).outcome == "no code"
    refused = (1, "cpu.h:3:5: error: expected ';'")
    assert judged(Answers([refused]), [["a"]], file="templates/cpu.h").outcome == "no code"
    assert judged(Answers([refused]), [["a"]]).outcome == "killed", "Python wrote what is refused"


def test_a_test_that_does_not_end_has_found_the_change_unless_time_is_over() -> None:
    found = judged(Answers([("hangs", "")]), [["a"]])
    assert (found.outcome, found.by) == ("killed", "hangs")
    assert judged(Answers([("hangs", "")]), [["a"]], ends=0.0).outcome == "no time"
    assert judged(Answers([(0, "")]), [["a"], ["b"]], ends=0.0).outcome == "no time"
