"""The functions of formulas: pointwise functions, and functions of a whole row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy as sp

from fusegen import atoms
from fusegen.ops import call, registry

__all__ = ["FUNCTIONS"]


def _of_rows(name: str, **attributes: Any) -> Callable[[sp.Expr], sp.Expr]:
    """Return an op as a function of a formula's part.

    The value gets a name (`let`). Otherwise sympy would move `1 / norm(x)` into the branches of the norm, one
    of which is 1 / 0. The argument gets a name too. A maximum must be subtracted from exactly its own
    argument, and sympy would move a condition on the argument into the branches of a `where`.
    """
    op = registry()[name]

    def function(x: sp.Expr) -> sp.Expr:
        named = x if x.is_Symbol or isinstance(x, atoms.Let) else atoms.let("argument", x)
        return atoms.let(name, call(op, named, {}, attributes))

    return function


#: Functions by name: (function, number of arguments).
FUNCTIONS: dict[str, tuple[Any, int]] = {
    "abs": (atoms.absolute, 1),
    "amax": (atoms.row_max, 1),
    "amin": (_of_rows("amin", dim=-1), 1),
    "cos": (sp.cos, 1),
    "erf": (atoms.erf, 1),
    "exp": (atoms.exp, 1),
    "expm1": (atoms.expm1, 1),
    "log": (atoms.log, 1),
    "log1p": (atoms.log1p, 1),
    "log_softmax": (_of_rows("log_softmax"), 1),
    "logsumexp": (_of_rows("logsumexp", dim=-1), 1),
    "max": (atoms.row_max, 1),
    "mean": (atoms.row_mean, 1),
    "min": (_of_rows("amin", dim=-1), 1),
    "norm": (_of_rows("norm", dim=-1), 1),
    "normcdf": (atoms.normcdf, 1),
    "normpdf": (atoms.normpdf, 1),
    "rsqrt": (atoms.rsqrt, 1),
    "sech2": (atoms.sech2, 1),
    "sign": (atoms.sign, 1),
    "sigmoid": (atoms.sigmoid, 1),
    "sin": (sp.sin, 1),
    "softmax": (_of_rows("softmax"), 1),
    "softplus": (atoms.softplus, 1),
    "sqrt": (atoms.sqrt, 1),
    "std": (_of_rows("std", dim=-1), 1),
    "sum": (atoms.row_sum, 1),
    "tanh": (atoms.tanh, 1),
    "var": (_of_rows("var", dim=-1), 1),
    "where": (atoms.where, 3),
}
