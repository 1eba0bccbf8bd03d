"""What the expressions of one stage have in common is computed once, under a name of its own."""

from __future__ import annotations

from shared.small_programs import X, element_lines, program_of

from fusegen.atoms import tanh
from fusegen.lower import lower
from fusegen.program.calculus import vjp


def test_common_parts_are_shared_and_named() -> None:
    kernel = lower(vjp(program_of(X * tanh(X) ** 2), "backward"))
    assert "\n".join(element_lines(kernel)).count("Math::tanh") == 1
    assert element_lines(kernel)[0] == "op_tanh = Math::tanh(full.x)"
