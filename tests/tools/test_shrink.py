"""A failing random program is made smaller: what is left has a fault, is a spec, and torch takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from random_programs.program import Program
from random_programs.run import Outcome, failing, generate
from random_programs.shapes import shapes_of
from random_programs.shrink import shrink

from fusegen.chain import derive_all
from fusegen.spec import parse


def _with(*words: str) -> Callable[[Mapping[str, Program]], set[str]]:
    """Return what takes a program with some words for one that fails."""
    return lambda programs: {n for n, p in programs.items() if all(w in p.text for w in words)}


@pytest.mark.parametrize(("seed", "words"), [(5197, ("softplus", "outputs")), (5103, ("amax",))])
def test_a_program_of_named_values_shrinks(seed: int, words: tuple[str, ...]) -> None:
    program = generate([seed], Outcome(), named=True)[f"named_{seed}"]
    small = shrink(program, _with(*words))
    derive_all(parse(small.text, small.name))
    assert all(shapes_of(small, place) for place in range(2))
    assert len(small.document["chain"]) < len(program.document["chain"])
    assert all(word in small.text for word in words)
    assert set(small.tensors or {}) <= set(small.document.get("operands", {}))
    assert sum(map(sum, (small.shape, small.other))) < sum(map(sum, (program.shape, program.other)))


def test_a_program_is_built_and_called_again_in_one_process() -> None:
    text = {"order": 1, "chain": ["tanh"]}
    program = Program("again", text, (2, 8), (3, 5))
    assert [failing({"again": program}, quick=True) for _ in range(2)] == [set(), set()]
