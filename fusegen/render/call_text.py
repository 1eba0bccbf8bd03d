"""A Python function of torch and of tensors as the text of what it returns.

The function is called with objects that write down what is done to them, in place of torch and the tensors.
So what an atom is by torch is declared once, as a function, and serves as text too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["call_text"]

_COMPARISON, _SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(6)  # how tightly a piece of text binds


def call_text(function: Callable[..., Any], *args: str, **constants: object) -> str:
    """Return what a function returns as text, in parentheses where it is an operation.

    Args:
        function: of the torch module, of tensors and of constants.
        args: the text of each tensor, which binds tightly: a name, a call, something in parentheses.
        constants: arguments that are written as Python writes them.
    """
    result = function(_Text("torch"), *map(_Text, args), **constants)
    return _operand(result, _ATOM)


class _Text:
    """The text of a value, and how tightly it binds."""

    def __init__(self, text: str, binding: int = _ATOM) -> None:
        self._text, self._binding = text, binding

    def __getattr__(self, name: str) -> _Text:
        return _Text(f"{_operand(self, _ATOM)}.{name}")

    def __getitem__(self, place: int) -> _Text:
        return _Text(f"{_operand(self, _ATOM)}[{place}]")

    def __call__(self, *args: object, **named: object) -> _Text:
        listed = [_operand(arg) for arg in args]
        listed += [f"{name}={_operand(arg)}" for name, arg in named.items()]
        return _Text(f"{self._text}({', '.join(listed)})")

    def __neg__(self) -> _Text:
        return _Text(f"-{_operand(self, _UNARY)}", _UNARY)

    def __add__(self, other: object) -> _Text:
        return _infix(self, "+", other, _SUM)

    def __radd__(self, other: object) -> _Text:
        return _infix(other, "+", self, _SUM)

    def __sub__(self, other: object) -> _Text:
        return _infix(self, "-", other, _SUM)

    def __rsub__(self, other: object) -> _Text:
        return _infix(other, "-", self, _SUM)

    def __mul__(self, other: object) -> _Text:
        return _infix(self, "*", other, _PRODUCT)

    def __rmul__(self, other: object) -> _Text:
        return _infix(other, "*", self, _PRODUCT)

    def __truediv__(self, other: object) -> _Text:
        return _infix(self, "/", other, _PRODUCT)

    def __rtruediv__(self, other: object) -> _Text:
        return _infix(other, "/", self, _PRODUCT)

    def __pow__(self, other: object) -> _Text:
        return _Text(f"{_operand(self, _ATOM)} ** {_operand(other, _ATOM)}", _POWER)

    def __lt__(self, other: object) -> _Text:
        return _compared(self, "<", other)

    def __le__(self, other: object) -> _Text:
        return _compared(self, "<=", other)

    def __gt__(self, other: object) -> _Text:
        return _compared(self, ">", other)

    def __ge__(self, other: object) -> _Text:
        return _compared(self, ">=", other)


def _infix(left: object, sign: str, right: object, binding: int) -> _Text:
    """Return an operation, whose right operand binds tighter than its left one."""
    return _Text(f"{_operand(left, binding)} {sign} {_operand(right, binding + 1)}", binding)


def _compared(left: object, sign: str, right: object) -> _Text:
    return _Text(f"{_operand(left, _SUM)} {sign} {_operand(right, _SUM)}", _COMPARISON)


def _operand(value: object, binding: int = _COMPARISON) -> str:
    """Return the text of a value, in parentheses where it binds less tightly than it must."""
    if isinstance(value, _Text):
        text, own = value._text, value._binding
    elif isinstance(value, tuple):
        text, own = f"({', '.join(map(_operand, value))})", _ATOM
    else:
        text = repr(value)
        own = _UNARY if text.startswith("-") else _ATOM
    return text if own >= binding else f"({text})"
