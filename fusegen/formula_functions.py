"""What a formula in a spec may call: pointwise functions, and functions of a whole row."""

from __future__ import annotations

from typing import Any

import sympy as sp

from fusegen import atoms
from fusegen.atoms import COLS, exp, let, log, row_max, row_mean, row_shift, row_sum, where

__all__ = ["FUNCTIONS"]


def _amin(x: sp.Expr) -> sp.Expr:
    return -row_max(-x)


def _var(x: sp.Expr) -> sp.Expr:
    return row_sum(let("centred", x - row_mean(x)) ** 2) / (COLS - 1)


def _std(x: sp.Expr) -> sp.Expr:
    return _root(let("var", _var(x)))


def _norm(x: sp.Expr) -> sp.Expr:
    return _root(row_sum(x**2))


def _root(value: sp.Expr) -> sp.Expr:
    """The square root, whose derivative at 0 is 0, as that of torch's norms is."""
    return where(value <= 0, 0, atoms.sqrt(value))


def _softmax(x: sp.Expr) -> sp.Expr:
    e = let("exp", exp(x - row_shift(x)))
    return e / row_sum(e)


def _log_softmax(x: sp.Expr) -> sp.Expr:
    shifted = let("shifted", x - row_shift(x))
    return shifted - log(row_sum(exp(shifted)))


def _logsumexp(x: sp.Expr) -> sp.Expr:
    largest = row_shift(x)
    return largest + log(row_sum(exp(x - largest)))


#: Functions by the name they are called by: (function, number of arguments).
FUNCTIONS: dict[str, tuple[Any, int]] = {
    "abs": (atoms.absolute, 1),
    "amax": (row_max, 1),
    "amin": (_amin, 1),
    "cos": (sp.cos, 1),
    "erf": (atoms.erf, 1),
    "exp": (exp, 1),
    "expm1": (atoms.expm1, 1),
    "log": (log, 1),
    "log1p": (atoms.log1p, 1),
    "log_softmax": (_log_softmax, 1),
    "logsumexp": (_logsumexp, 1),
    "max": (row_max, 1),
    "mean": (row_mean, 1),
    "min": (_amin, 1),
    "norm": (_norm, 1),
    "normcdf": (atoms.normcdf, 1),
    "normpdf": (atoms.normpdf, 1),
    "rsqrt": (atoms.rsqrt, 1),
    "sech2": (atoms.sech2, 1),
    "sign": (atoms.sign, 1),
    "sigmoid": (atoms.sigmoid, 1),
    "sin": (sp.sin, 1),
    "softmax": (_softmax, 1),
    "softplus": (atoms.softplus, 1),
    "sqrt": (atoms.sqrt, 1),
    "std": (_std, 1),
    "sum": (row_sum, 1),
    "tanh": (atoms.tanh, 1),
    "var": (_var, 1),
    "where": (where, 3),
}
