"""Arguments that have one value alone: steps see the number in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusegen.spec.factor import OF
from fusegen.spec.model import EXPR

__all__ = ["with_constants"]

#: Keys of a step whose values are names or text.
_WORDS = ("name", "formula", "parts", OF)


def with_constants(step: Any, constants: Mapping[str, int | bool]) -> Any:
    """Return a step of a spec with the values of some arguments in place of their names."""
    if not constants or not isinstance(step, dict):
        return step
    return {
        word: given if word == EXPR and isinstance(given, str) else _replaced(given, constants)
        for word, given in step.items()
    }


def _replaced(given: Any, constants: Mapping[str, int | bool]) -> Any:
    if isinstance(given, dict):
        return {k: v if k in _WORDS else _replaced(v, constants) for k, v in given.items()}
    if isinstance(given, list):
        return [_replaced(each, constants) for each in given]
    return constants.get(given, given) if isinstance(given, str) else given
