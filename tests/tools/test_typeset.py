"""Programs as equations: MathML that browsers know, LaTeX, and names as mathematicians write them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
import sympy as sp
from shared.command import fusegen_here

from fusegen.atoms import absolute, infinity, power, where
from fusegen.chain import Chain
from fusegen.ops import registry
from fusegen.program import Program
from fusegen.spec import parse
from fusegen.tools.manual.alone import backward_of, program_of
from fusegen.tools.typeset import equations
from fusegen.tools.typeset.latex import Latex
from fusegen.tools.typeset.mathml import MathML
from fusegen.tools.typeset.names import Bar, Names, Plain, Prime, Sub

X = sp.Symbol("x", real=True)
#: The elements of MathML Core that browsers typeset, of those that formulas need.
KNOWN = {
    *("math", "mrow", "mi", "mn", "mo", "mtext", "mfrac", "msqrt", "mroot", "msub", "msup"),
    *("msubsup", "mover", "munder", "mtable", "mtr", "mtd"),
}


def names_of(text: str) -> tuple[Names, tuple[Program, ...]]:
    from fusegen.chain import derive

    programs = derive(parse(text, "example")).segments[0].modes[0].programs
    return Names(programs), programs


def text_of(mathml: str) -> str:
    return "".join(ET.fromstring(f"<math>{mathml}</math>").itertext())


def test_names_that_the_calculus_made_are_read() -> None:
    names, _ = names_of("order: 2\nchain:\n  - softmax\n  - mish\n")
    y, mish = Plain("y"), Plain("mish")
    assert names.read("grad_y") == Bar(y)
    assert names.read("grad_grad_y") == Bar(Bar(y))
    assert names.read("d_mish") == Prime(mish)
    assert names.read("d_d_mish") == Prime(Prime(mish))
    assert names.read("grad_d_mish") == Bar(Prime(mish))
    assert names.read("softmax_max") == Sub(Plain("softmax"), "max")
    assert names.read("d_grad_softmax_exp_softmax_sum") == Prime(
        Bar(Sub(Plain("softmax"), "exp")), Sub(Plain("softmax"), "sum")
    )


def test_the_bar_of_a_part_is_over_the_word() -> None:
    names, _ = names_of("order: 2\nchain: [softmax]\n")
    found = ET.fromstring(MathML(names).name("grad_softmax_sum"))
    assert [child.tag for child in found] == ["mover", "mtext"]


def test_names_of_a_spec_stay() -> None:
    text = (
        "operands: {d_model: col, grad_scale: scalar}\nchain:\n  - expr: x * d_model * grad_scale\n"
    )
    names, _ = names_of(text)
    assert names.read("d_model") == Plain("d_model")
    assert names.read("user_grad_scale") == Plain("user_grad_scale")  # its name in programs
    assert names.read("grad_d_model") == Bar(Plain("d_model"))


@pytest.mark.parametrize(
    ("expr", "marked", "tex"),
    [
        (where(X <= 0, 0, X), "{0if x≤0xotherwise", r"\begin{cases} 0 & \text{for}\: x \leq 0"),
        (absolute(X), "|x|", r"\left|x\right|"),
        (power(X + 1, X), "(x+1)x", r"{\left(x + 1\right)}^{x}"),
        (infinity, "∞", r"\infty"),
        (-X / 2, "−x2", r"- \frac{x}{2}"),
        (1.5e-7 * X, "1.5e-07·x", r"1.5 \cdot 10^{-7} \cdot x"),
        (sp.exp(-X) ** 2, "exp(−2·x)", r"\exp\left(- 2 \cdot x\right)"),
    ],
)
def test_expressions(expr: sp.Expr, marked: str, tex: str) -> None:
    names, _ = names_of("chain: [tanh]\n")
    assert text_of(MathML(names).text(expr)) == marked
    assert tex in Latex(names).text(expr)


@pytest.mark.parametrize("name", registry())
def test_every_op_has_equations_that_browsers_know(name: str) -> None:
    program = program_of(registry()[name])
    for found in equations([program, backward_of(program)]):
        for equation in found:
            root = ET.fromstring(equation.mathml)
            assert {element.tag for element in root.iter()} <= KNOWN
            # Elements with a fixed number of children, or nothing is shown.
            counts = {"mfrac": 2, "msub": 2, "msup": 2, "mover": 2, "munder": 2, "mroot": 2}
            for element in root.iter():
                assert len(element) == counts.get(element.tag, len(element))
            assert "&=" in equation.tex
            assert equation.tex.count("{") == equation.tex.count("}")
            assert equation.tex.count(r"\left") == equation.tex.count(r"\right")


def test_each_value_has_its_equation(derived: Callable[[str], Chain]) -> None:
    programs = derived("matmul_gelu_softmax").segments[0].modes[0].programs
    for program, found in zip(programs, equations(programs), strict=True):
        inputs = {i.name for i in program.inputs}
        assert {e.name for e in found} == {v.name for v in program.nodes()} - inputs


def test_parentheses_stay_low_around_a_line() -> None:
    names, _ = names_of("chain: [tanh]\n")
    low, high = (MathML(names).text(sp.tanh(e)) for e in (X, 1 / X))
    assert low.count('stretchy="false"') == 2
    assert 'stretchy="false"' not in high


def test_show_prints_latex() -> None:
    printed = fusegen_here("show", "swish_tanh_mish", "--tex").stdout
    assert r"\mathrm{swish} &= x \cdot \sigma\left(x\right)" in printed
    assert printed.count(r"\begin{align*}") == printed.count(r"\end{align*}") == 4
    assert re.findall(r"^% (\w+)", printed, re.MULTILINE)[-1] == "triple_backward"
