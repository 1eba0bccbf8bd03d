"""Which polynomials stand for which functions in a chain's kernels, and how exact they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from fusegen.base import paths
from fusegen.chain import Chain, Chains
from fusegen.lower.polynomials import elementary

__all__ = ["Approximation", "approximations", "elementary_of"]

#: What the precisions are for.
_FOR = {"single": "float32", "brief": "16 bits"}
#: The headers whose functions are built on polynomials, what is inherited first.
_HEADERS = ("logarithms.h", "angles.h", "elementary.h")
_BODY = re.compile(r"static FUSEGEN_FN \w+ (\w+)\(")


@dataclass(frozen=True)
class Approximation:
    """A polynomial in a chain's kernels.

    Args:
        functions: the functions that it is part of.
        formula: what it approximates, and for which arguments.
        accuracy: its degree and largest error, for each kind of dtype.
        place: the kernels that it was fitted for, or the header for all.
    """

    functions: tuple[str, ...]
    formula: str
    accuracy: Mapping[str, str]
    place: str


def approximations(chain: Chain | Chains, element: str) -> list[Approximation]:
    """Return the polynomials of a chain: those fitted for it, then those of its elementary functions.

    Args:
        chain: the chain.
        element: the text of its element.h.
    """
    kernels = [part for mode in chain.modes for kernel in mode.kernels for part in kernel.parts]
    fitted = {
        (function.name, function.formula): function
        for kernel in kernels
        for function in kernel.fitted
    }
    own = [
        Approximation(
            (name,),
            formula,
            {_FOR[branch.precision]: branch.accuracy for branch in function.branches},
            ", ".join(k.name for k in kernels if function in k.fitted),
        )
        for (name, formula), function in fitted.items()
    ]
    return own + elementary_of(sorted(set(re.findall(r"Math::(?:OfSum::)?(\w+)\(", element))))


def elementary_of(functions: Sequence[str]) -> list[Approximation]:
    """Return the polynomials that some elementary functions are built on."""
    reached = {function: _reached(function, set()) for function in functions}
    return [
        Approximation(
            tuple(users),
            f"{recipe.formula}, for s from {recipe.low:.4g} to {recipe.high:.4g}",
            _accuracies()[recipe.name],
            "fitted.h",
        )
        for recipe in elementary.RECIPES
        if (users := [f for f in functions if recipe.name in reached[f]])
    ]


def _reached(function: str, seen: set[str]) -> set[str]:
    """Return the names of the polynomials that a function calls, itself or through others."""
    body = _bodies().get(function)
    if body is None or function in seen:
        return set()
    seen.add(function)
    found = set(re.findall(r"fitted::(\w+)\(", body))
    for called in re.findall(r"(?<![:.\w])(\w+)\(", body):
        found |= _reached(called, seen)
    return found


@cache
def _bodies() -> dict[str, str]:
    """Return the text of each function of `FastMath` and of what it inherits in float32, by name."""
    found: dict[str, str] = {}
    for name in _HEADERS:
        text = (paths.include() / "fusegen" / name).read_text(encoding="utf-8")
        _, *pieces = _BODY.split(text)
        found.update(zip(pieces[::2], pieces[1::2], strict=True))
    return found


@cache
def _accuracies() -> dict[str, dict[str, str]]:
    """Return what fitted.h says of each polynomial, by its name and by what it is for."""
    found: dict[str, dict[str, str]] = {}
    said = re.compile(r"// (\w+): (.*)\.\nFUSEGEN_FN float (\w+)\(")
    for precision, accuracy, name in said.findall(elementary.path().read_text(encoding="utf-8")):
        found.setdefault(name, {})[_FOR[precision]] = accuracy
    return found
