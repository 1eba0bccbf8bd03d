"""Each declared atom: its value against torch's, its derivative against slopes, its interval at samples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import mpmath
import pytest
import sympy as sp
import torch
from torch import Tensor

from fusegen.atoms import ATOMS, Atom, Pointwise, Shape
from fusegen.atoms.special import infinity, minus_infinity, undefined
from fusegen.atoms.text import written
from fusegen.atoms.values import evaluate, folded
from fusegen.lower import Variable
from fusegen.lower.polynomials.of_formulas import _smooth
from fusegen.lower.print_cpp import Printer
from fusegen.program.ranges import Interval, interval
from fusegen.render.call_text import call_text
from fusegen.spec.formula.functions import functions

X, Y = ARGUMENTS = sp.symbols("x y", real=True)
NAMES = {function.__name__: function for function in ATOMS}
#: Functions whose derivative is no slope, by their meaning: 0, also at steps, and that of another
#: argument.
CHOSEN = ("detach", "straight_through", "floor", "ceil", "round_half_even", "trunc")
POINTS = (
    *(-30.0, -6.5, -3.7, -1.25, -0.5, -1e-3, -1e-9, 1e-9, 1e-3, 0.3, 0.75, 1.0),
    *(1.5, 2.75, 3.7, 6.0, 9.0, 15.0, 30.0),
)
ENDS = (-math.inf, -8.0, -0.75, 0.0, 0.5, 6.0, math.inf)


def arity(function: type[sp.Basic]) -> int:
    return int(min(function.nargs))


def points(function: type[sp.Basic]) -> list[tuple[float, ...]]:
    """Return arguments at which a function has a real value."""
    listed = [(x,) for x in POINTS] if arity(function) == 1 else []
    listed = listed or [(x, y) for x in POINTS for y in (-2.0, 0.5, 3.0)]
    with mpmath.workdps(30):
        return [at for at in listed if is_real(ATOMS[function], at)]


def is_real(atom: Atom, at: tuple[float, ...]) -> bool:
    try:
        value = atom.value(*map(mpmath.mpf, at))
        return isinstance(value, mpmath.mpf) and mpmath.isfinite(value)
    except (ArithmeticError, ValueError):
        return False


def torch_values(function: type[sp.Basic], precise: bool) -> Iterator[tuple[mpmath.mpf, float]]:
    """Yield the declared value and torch's, in float64."""
    atom = ATOMS[function]
    by_torch = atom.truth if precise else atom.torch
    for at in points(function):
        with mpmath.workdps(40):
            exact = atom.value(*map(mpmath.mpf, at))
        if abs(exact) > 1e-300:
            tensors = (torch.tensor(a, dtype=torch.float64) for a in at)
            yield exact, by_torch(torch, *tensors).item()


@pytest.mark.parametrize("name", NAMES)
def test_the_value_is_torchs(name: str) -> None:
    found = list(torch_values(NAMES[name], precise=True))
    assert len(found) > 6
    for exact, got in found:
        condition = 1 + abs(mpmath.log(abs(exact)))  # of what is as steep as exp
        assert abs(got - exact) <= 8 * 2.0**-52 * condition * abs(exact)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_for_torch_is_the_value_too(name: str) -> None:
    """It may lose digits where the value is small: modules and benchmarks run it, no check does."""
    for exact, got in torch_values(NAMES[name], precise=False):
        assert abs(got - exact) <= 1e-13 * (abs(exact) + 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precise", [False, True], ids=["torch", "precise"])
def test_the_text_for_torch_is_the_function(name: str, precise: bool) -> None:
    function = NAMES[name]
    atom, names = ATOMS[function], [str(s) for s in ARGUMENTS[: arity(function)]]
    by_torch = atom.truth if precise else atom.torch
    x = torch.tensor(POINTS, dtype=torch.float64)
    given: dict[str, Tensor] = {"x": x, "y": x.flip(0) / 4}
    text = call_text(by_torch, *names)
    found = eval(f"-1 * {text}", {"torch": torch, **given})  # noqa: S307 # as in a package
    torch.testing.assert_close(
        found, -by_torch(torch, *(given[n] for n in names)), rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CHOSEN])
def test_the_derivative_is_the_slope(name: str) -> None:
    function = NAMES[name]
    symbols = ARGUMENTS[: arity(function)]
    checked = 0
    for symbol in symbols:
        derivative = function(*symbols).diff(symbol)
        for at in points(function):
            numbers = [mpmath.mpf(a) for a in at]

            order = tuple(int(s is symbol) for s in symbols)
            with mpmath.workdps(60):
                step = mpmath.mpf(10) ** -25
                slope = mpmath.diff(ATOMS[function].value, tuple(numbers), order, h=step)
                if not isinstance(slope, mpmath.mpf):
                    continue
                found = evaluate(derivative, dict(zip(symbols, numbers, strict=True)))
            checked += 1
            assert abs(found - slope) <= 1e-15 * abs(slope) + mpmath.mpf(10) ** -30, (symbol, at)
    assert checked > 6


@pytest.mark.parametrize("name", NAMES)
def test_the_interval_holds_every_value(name: str) -> None:
    function = NAMES[name]
    symbols = ARGUMENTS[: arity(function)]
    for low, high in ((a, b) for a in ENDS for b in ENDS if a <= b):
        found = interval(function(*symbols), dict.fromkeys(symbols, Interval(low, high)))
        ends = [e for e in (low, high) if math.isfinite(e)]
        inside = [(x, y) for x in (*POINTS, *ends) for y in (*POINTS, *ends)]
        for at in inside if len(symbols) == 2 else [(x,) for x in (*POINTS, *ends)]:
            if not all(low <= x <= high for x in at):
                continue
            with mpmath.workdps(30):
                if is_real(ATOMS[function], at):
                    value = float(ATOMS[function].value(*map(mpmath.mpf, at)))
                    slack = 1e-15 * abs(value)
                    assert found.low - slack <= value <= found.high + slack, (low, high, at)


@pytest.mark.parametrize("name", [n for n, f in NAMES.items() if ATOMS[f].shape])
def test_a_known_shape_has_a_sharp_interval(name: str) -> None:
    """On either side of 0 the ends of the interval are the values at the ends."""
    atom = ATOMS[NAMES[name]]
    for low, high in ((-2.0, -0.5), (0.25, 3.0)):
        found = interval(NAMES[name](X), {X: Interval(low, high)})
        ends = sorted(float(atom.value(mpmath.mpf(e))) for e in (low, high))
        assert (found.low, found.high) == pytest.approx(tuple(ends), rel=1e-14)


def test_a_falling_function_has_the_interval_of_its_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class falling(Pointwise):
        nargs = 1

    atom = Atom(value=lambda x: -x, torch=lambda _, x: -x, cpp="-{0}", shape=Shape.FALLING)
    monkeypatch.setitem(ATOMS, falling, atom)
    assert interval(falling(X), {X: Interval(-1.0, 3.0)}) == Interval(-3.0, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_what_cancels_is_the_same_value(name: str) -> None:
    function, cancels = NAMES[name], ATOMS[NAMES[name]].cancels
    if cancels is None:
        return
    pairs = [(function(X) + n, form(X)) for n, form in cancels.plus.items()]
    for left, form in (
        (function(X) - function(-X), cancels.mirrored),
        (function(X) - X, cancels.less_argument),
        (function(X) ** 2 - 1, cancels.square_less_one),
        (function(1 + X), cancels.after_one),
    ):
        pairs += [(left, form(X))] if form else []
    assert pairs
    for left, right in pairs:
        for at in ("-0.625", "0.875"):
            with mpmath.workdps(40):
                known = {X: mpmath.mpf(at)}
                assert mpmath.almosteq(evaluate(left, known), evaluate(right, known), 1e-30)


@pytest.mark.parametrize("name", NAMES)
def test_the_printer_writes_the_declared_function(name: str) -> None:
    function = NAMES[name]
    symbols = ARGUMENTS[: arity(function)]
    code = Printer({X: Variable("x"), Y: Variable("y")}, lambda _: 1)(function(*symbols))
    cpp, names = ATOMS[function].cpp, [*map(str, symbols)]
    written = f"({cpp.format(*names)})" if "{0}" in cpp else f"{cpp}({', '.join(names)})"
    assert code.text == written
    assert code.calls == ATOMS[function].calls


@pytest.mark.parametrize("name", NAMES)
def test_a_formula_writes_its_word(name: str) -> None:
    function = NAMES[name]
    symbols = ARGUMENTS[: arity(function)]
    listed = ", ".join(map(str, symbols))
    word = (
        "" if name == "together" else ATOMS[function].word or name
    )  # it is written as parentheses
    assert written(function(*symbols)) == f"{word}({listed})"


@pytest.mark.parametrize("name", ["absolute", "sign", "softsign", "log", "log1p"])
def test_no_polynomial_crosses_what_is_not_smooth(name: str) -> None:
    """A kink, a pole or the end of what it is defined on is in [-1, 1], and not in [1/4, 1]."""
    formula = NAMES[name](X)
    assert not _smooth(formula, {X: Interval(-1.0, 1.0)})
    assert _smooth(formula, {X: Interval(0.25, 1.0)})


def test_a_word_belongs_to_one_atom() -> None:
    words = [atom.word for atom in ATOMS.values() if atom.word]
    assert len(words) == len(set(words))
    assert {*words} <= functions().keys()
    with pytest.raises(ValueError, match=r"call fusegen\.atoms\.saturating\.tanh 'tanh'"):
        Atom(word="tanh", value=mpmath.tanh, torch=lambda _, x: x, cpp="f")(sp.cosh)
    assert sp.cosh not in ATOMS


@pytest.mark.parametrize(("x", "wanted"), [(-1, 3), (0, 1), (1, 2), (2, 3)])
def test_conditions_of_numbers(x: int, wanted: int) -> None:
    """Each part of one that joins several counts."""
    s = sp.Symbol("x", real=True)
    expr = sp.Piecewise((1, sp.And(s >= 0, s < 1)), (2, sp.Or(sp.Eq(s, 0), sp.Eq(s, 1))), (3, True))
    assert evaluate(expr, {s: mpmath.mpf(x)}) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_smooth_intervals_begin_before_they_end(name: str) -> None:
    assert all(low < high for low, high in ATOMS[NAMES[name]].smooth)


def test_an_atom_of_a_constant_is_a_number_where_that_is_finite() -> None:
    tanh, log1p = NAMES["tanh"], NAMES["log1p"]
    found = folded(X * tanh(sp.Integer(2)))
    assert found.has(X)
    assert not found.has(tanh)
    assert abs(float(found / X) - math.tanh(2)) < 1e-15
    assert folded(log1p(sp.Integer(-1))).has(log1p)


@pytest.mark.parametrize("number", [infinity, minus_infinity, undefined])
def test_a_derivative_takes_infinity_and_nan_for_real(number: sp.Expr) -> None:
    """Otherwise that of a magnitude has real and imaginary parts, which no kernel computes."""
    slope = sp.diff(abs(X * number), X)
    assert slope.subs(X, 2) == number * sp.sign(2 * number)
    assert sp.Eq(number, X) not in (sp.true, sp.false)
