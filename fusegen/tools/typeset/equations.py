"""A program as equations, one for each value that it computes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fusegen.program import Input, Map, Program, Reduce, Take, Value
from fusegen.tools.typeset.latex import Latex
from fusegen.tools.typeset.mathml import MathML
from fusegen.tools.typeset.names import Names

__all__ = ["Equation", "aligned", "equations", "legend"]


@dataclass(frozen=True)
class Equation:
    """A value of a program.

    Args:
        name: its name in the program and in the generated C++.
        mathml: the equation, a `math` element.
        tex: the same as LaTeX, with & before the equals sign.
        kind: its kind.
        shape: its shape in terms of the activation's.
        note: where it comes from, if the program says so.
    """

    name: str
    mathml: str
    tex: str
    kind: str
    shape: str
    note: str


def equations(programs: Sequence[Program]) -> list[list[Equation]]:
    """Return the equations of each program.

    Args:
        programs: a forward program and its derivatives, in order.
    """
    names = Names(programs)
    mathml, latex = MathML(names), Latex(names)
    return [
        [
            _equation(value, mathml, latex)
            for value in program.nodes()
            if not isinstance(value, Input)
        ]
        for program in programs
    ]


def aligned(found: Iterable[Equation]) -> str:
    """Return equations as LaTeX, one below the other."""
    lines = " \\\\\n".join(f"  {equation.tex}" for equation in found)
    return f"\\begin{{align*}}\n{lines}\n\\end{{align*}}"


def legend(programs: Sequence[Program], names: Sequence[str]) -> dict[str, str]:
    """Return the names of some values, each as a `math` element."""
    mathml = MathML(Names(programs))
    return {name: _math(mathml.name(name), display=False) for name in names}


def _equation(value: Value, mathml: MathML, latex: Latex) -> Equation:
    marked, written = mathml.name(value.name), latex.name(value.name)
    if isinstance(value, Map):
        right, tex = mathml.text(value.expr), latex.text(value.expr)
    elif isinstance(value, Reduce):
        right, tex = _reduction(value, mathml, latex)
    else:
        assert isinstance(value, Take)
        arg, index = value.arg.name, value.index.name
        right = f"<msub>{mathml.name(arg)}{mathml.name(index)}</msub>"
        tex = rf"{{{latex.name(arg)}}}_{{{latex.name(index)}}}"
    return Equation(
        value.name,
        _math(f"<mrow>{marked}<mo>=</mo>{right}</mrow>", display=True),
        f"{written} &= {tex}",
        value.kind.label,
        value.kind.shape,
        value.note if isinstance(value, Map) else "",
    )


def _reduction(value: Reduce, mathml: MathML, latex: Latex) -> tuple[str, str]:
    over = ", ".join(value.axes.extents)
    over = f"first {over}" if value.sample else over
    if value.op == "sum":
        sign, command = '<mo largeop="true">∑</mo>', r"\sum"
    else:
        sign, command = "<mi>max</mi>", r"\max"
    below = f"<mtext>{over}</mtext>"
    right = f"<mrow><munder>{sign}{below}</munder>{mathml.name(value.arg.name)}</mrow>"
    return right, rf"{command}_{{\text{{{over}}}}} {latex.name(value.arg.name)}"


def _math(inside: str, *, display: bool) -> str:
    shown = ' display="block"' if display else ""
    return f"<math{shown}>{inside}</math>"
