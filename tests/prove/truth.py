"""A pointwise chain's value and derivative, exactly: in float64 for all inputs, to 60 digits for some."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mpmath
import sympy as sp
import torch
from torch import Tensor

from fusegen.atoms.values import evaluate
from fusegen.chain import Chain
from fusegen.program import Input
from fusegen.tools.check.condition import MORE_RUNS, spreads
from fusegen.tools.check.reference_program import run_program
from fusegen.tools.check.rounding import EXACT, Rounding

#: The variable of `formula_of`.
X = sp.Symbol("x", real=True)
#: A truth changes its sign near x if it has another sign at one of these multiples of x.
AROUND = (0.7, 1.4)


def formula_of(chain: Chain) -> sp.Expr:
    """Return a pointwise chain of x alone as one formula."""
    known: dict[sp.Symbol, sp.Expr] = {}
    program = chain.segments[0].modes[0].programs[0]
    for node in program.nodes():
        known[node.symbol] = X if isinstance(node, Input) else node.expr.xreplace(known)
    return known[program.outputs["y"].value.symbol]


def exactly(formula: sp.Expr, x: float) -> float:
    """Return a formula's value, from 60 digits; NaN where it is no real number."""
    with mpmath.workdps(60):
        try:
            value = evaluate(formula, {X: mpmath.mpf(x)})
        except ArithmeticError:
            return math.nan
        return math.nan if isinstance(value, mpmath.mpc) else float(value)


class Truth:
    """A chain's value (order 0) or derivative (order 1).

    The float64 one is the chain's own program, by torch's functions. The exact one is the formula, whose
    derivative is sympy's: another derivation.
    """

    def __init__(self, chain: Chain, order: int) -> None:
        formula = formula_of(chain)
        self._program = chain.segments[0].modes[0].programs[order]
        self._output = "grad_x" if order else "y"
        self._exact = sp.diff(formula, X) if order else formula
        self._turns = formula.has(sp.sin, sp.cos)  # it changes its sign everywhere

    def near(self, x: Tensor) -> Tensor:
        """Return the truth in float64."""
        return self._run(x, EXACT)[0]

    def spread(self, x: Tensor) -> Tensor:
        """Return the standard deviation of a result under the rounding of each operation of x's dtype."""
        return spreads(lambda rounding: self._run(x, rounding), x.dtype, runs=MORE_RUNS)[0]

    def _run(self, x: Tensor, rounding: Rounding) -> list[Tensor]:
        x = x.double()
        given = {"x": x, "grad_y": torch.ones_like(x)}
        inputs = {i.name: given[i.name] for i in self._program.inputs}
        found = run_program(self._program, {"x": x, **inputs}, rounding=rounding)
        return [found[self._output].expand_as(x).clone()]

    def size(self, x: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return what an error at each x is relative to, and where that is more than the truth.

        Where the truth changes its sign between 0.7 x and 1.4 x, an error is held against the larger of its
        sizes at these: half an ulp of x alone changes the truth by that much times eps.
        """
        if self._turns:
            return truth.abs(), torch.zeros_like(truth, dtype=torch.bool)
        low, high = (self.near(x.double() * factor) for factor in AROUND)
        crossing = low * high < 0
        around = torch.maximum(low.abs(), high.abs())
        return torch.where(crossing, torch.maximum(around, truth.abs()), truth.abs()), crossing

    def exact(self, x: Sequence[float]) -> Tensor:
        """Return the truth at some numbers from 60 digits."""
        return torch.tensor([exactly(self._exact, v) for v in x], dtype=torch.float64)
