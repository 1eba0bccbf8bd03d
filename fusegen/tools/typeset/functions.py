"""What formulas call their functions and numbers on paper."""

from __future__ import annotations

from typing import Any

import sympy as sp

from fusegen.atoms import ATOMS

__all__ = ["GREEK", "SYMBOLS", "infinite", "word"]

#: Letters of constants and of attributes. `sigma` and `phi` are functions here.
GREEK = {
    "alpha": "α",
    "beta": "β",
    "delta": "δ",
    "eps": "ε",
    "epsilon": "ε",
    "gamma": "γ",
    "mu": "μ",
    "tau": "τ",
    "theta": "θ",
}
#: The symbols of functions that have one: the character, and its LaTeX.
SYMBOLS = {
    "sigmoid": ("σ", r"\sigma"),
    "normcdf": ("Φ", r"\Phi"),
    "normpdf": ("φ", r"\varphi"),
}


def word(function: Any) -> str:
    """Return what a formula calls a function."""
    atom = ATOMS.get(function)
    return (atom and atom.word) or str(function.__name__)


def infinite(special: sp.Basic) -> tuple[str, str]:
    """Return a number that is no real one: as a character, and as LaTeX."""
    return {
        1: ("∞", r"\infty"),
        -1: ("−∞", r"-\infty"),
        0: ("NaN", r"\mathrm{NaN}"),
        2: ("0", "0"),
    }[int(sp.Integer(special.args[0]))]
