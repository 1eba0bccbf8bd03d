"""A new atom is one declaration: a formula with it is parsed, derived, printed, built and checked."""

from __future__ import annotations

import inspect
import json
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path

import mpmath
import pytest
import sympy as sp
import torch
from conftest import ROOT
from shared.small_programs import X, program_of_steps

import fusegen
from fusegen.atoms import ATOMS, Atom, Pointwise, Shape, cosh
from fusegen.atoms.text import written
from fusegen.lower import Variable
from fusegen.lower.polynomials.of_formulas import fit_formulas
from fusegen.lower.print_cpp import Printer
from fusegen.program import Map
from fusegen.program.ranges import ALL, Interval, interval, simplify
from fusegen.render.stepwise import stepwise_lines
from fusegen.spec import parse
from fusegen.spec.formula.parser import FormulaError
from fusegen.spec.formula.parser import parse as parse_formula
from fusegen.toolchain import pipeline
from fusegen.tools.bench.plain import tail
from fusegen.tools.check import verify

#: The atom alone, on a short interval, where it never reaches the clip, and in a row.
CHAIN = """
chain:
  - expr: "x * gd(x) + gd(1)"
  - tanh
  - expr: {name: near, formula: "gd(x)"}
  - hardtanh: {min_val: -2, max_val: 2}
  - expr: "x - mean(gd(x)) + gd(near / 2)"
"""


def declared() -> type[sp.Function]:
    @Atom(
        word="gd",
        derivative=lambda x: 1 / cosh(x),
        value=lambda x: 2 * mpmath.atan(mpmath.tanh(x / 2)),
        torch=lambda torch, x: 2 * torch.atan(torch.tanh(x / 2)),
        cpp="T(2) * std::atan(std::tanh(T(0.5) * {0}))",
        shape=Shape.GROWING,
    )
    class gd(Pointwise):
        """The Gudermannian function, the integral of 1 / cosh."""

        nargs = 1

    return gd


@pytest.fixture
def gd() -> Iterator[type[sp.Function]]:
    function = declared()
    yield function
    del ATOMS[function]


def test_the_docs_show_this_declaration() -> None:
    body = inspect.getsource(declared).split("\n", 1)[1].rsplit("\n    return", 1)[0]
    assert textwrap.dedent(body).strip() in (ROOT / "docs" / "adding_an_op.md").read_text()


def test_formulas_know_it(gd: type[sp.Function]) -> None:
    assert parse_formula("1 + gd(2 * x)", {"x": X}) == 1 + gd(2 * X)
    folded = parse_formula("gd(1) * x", {"x": X})
    assert float(folded.coeff(X)) == 2 * math.atan(math.tanh(0.5))
    assert written(gd(X)) == "gd(x)"
    with pytest.raises(FormulaError, match="takes 1, not 2"):
        parse_formula("gd(x, 2)", {"x": X})


def test_nobody_knows_it_before() -> None:
    with pytest.raises(FormulaError, match="unknown function 'gd'"):
        parse_formula("gd(x)", {"x": X})


def test_it_has_an_interval_by_which_a_clip_disappears(gd: type[sp.Function]) -> None:
    found = interval(gd(X), {X: ALL})
    assert (found.low, found.high) == pytest.approx((-math.pi / 2, math.pi / 2))
    clip = sp.Piecewise((-2, X < -2), (2, X > 2), (X, True))
    kept = simplify(program_of_steps(gd(X), clip)).nodes()
    assert not any(isinstance(v, Map) and v.expr.has(sp.Piecewise) for v in kept)
    assert interval(sp.Function("g")(X), {X: Interval(0.0, 1.0)}) == ALL


def test_it_is_code_and_a_call(gd: type[sp.Function]) -> None:
    code = Printer({X: Variable("x")}, lambda _: 1)(2 * gd(X))
    assert code.text == "T(2) * (T(2) * std::atan(std::tanh(T(0.5) * x)))"
    assert code.calls == 1


def test_it_becomes_a_polynomial_on_a_short_interval(gd: type[sp.Function]) -> None:
    program = program_of_steps(sp.sin(X), gd(X))
    assert len(fit_formulas(program)) == 1


def test_code_may_be_an_expression() -> None:
    @Atom(value=lambda x: x * x, torch=lambda _, x: x * x, cpp="{0} * {0}", calls=0)
    class squared(Pointwise):
        nargs = 1

    try:
        code = Printer({X: Variable("x")}, lambda _: 1)(3 * squared(1 + X))
    finally:
        del ATOMS[squared]
    assert code.text == "T(3) * ((x + T(1)) * (x + T(1)))"
    assert code.calls == 0


def gudermannian(x: torch.Tensor) -> torch.Tensor:
    return 2 * torch.atan(torch.tanh(x / 2))


def by_hand(x: torch.Tensor) -> torch.Tensor:
    near = torch.tanh(x * gudermannian(x) + 2 * math.atan(math.tanh(0.5)))
    near = gudermannian(near)
    return near - gudermannian(near).mean(-1, keepdim=True) + gudermannian(near / 2)


@pytest.mark.usefixtures("gd")
def test_a_package_with_it_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEGEN_NATIVE", "1")
    spec, out = tmp_path / "arcs.yaml", tmp_path / "generated"
    spec.write_text(CHAIN)
    fusegen.build(spec, out=out, backend="cpu", quiet=True)
    package = fusegen.load("arcs", out)

    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        x = torch.randn(7, 129, dtype=dtype, requires_grad=True)
        weight = torch.randn(7, 129, dtype=dtype)
        found, wanted = package.apply(x), by_hand(x)
        slopes = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, wanted)]
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(*slopes, rtol=tolerance, atol=tolerance)

    verdicts = verify.check([spec], out)
    assert len(verdicts) > 4
    assert all(v.passed for v in verdicts), [v for v in verdicts if not v.passed]

    x = torch.randn(7, 129, dtype=torch.float64)
    torch.testing.assert_close(tail(pipeline.derive(spec), {})(x), by_hand(x))
    sources = json.loads((out / ".build" / "arcs" / "rendered.json").read_text())["sources"]
    assert [*sources] == [__file__]


@pytest.mark.usefixtures("gd")
def test_a_module_that_runs_step_by_step_calls_torchs() -> None:
    (line,) = stepwise_lines(parse('chain:\n  - expr: "2 * gd(x)"\n', "arc"), {}, {})
    assert line == "x = (2 * (2 * torch.atan(torch.tanh(x / 2))))"
