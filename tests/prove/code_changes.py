"""One thing changed in fusegen's own code: a sign, an index, a bound, a comparison, a mask, a rounding.

Comments, messages and type hints stay as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class Change:
    """One change of a file.

    Args:
        first: where what is replaced begins in the text.
        last: where it ends.
        new: what stands there afterwards.
        kind: what is changed.
    """

    first: int
    last: int
    new: str
    kind: str

    def of(self, text: str) -> str:
        """Return a text after the change."""
        return text[: self.first] + self.new + text[self.last :]

    def lines(self, text: str) -> tuple[int, str, str]:
        """Return the number of the line where it is, that line, and what becomes of it."""
        number = text.count("\n", 0, self.first)
        changed = self.of(text)
        return number + 1, text.split("\n")[number].strip(), changed.split("\n")[number].strip()


def changes(path: Path, text: str) -> list[Change]:
    """Return every change that can be made to a file."""
    found = _python(text) if path.suffix == ".py" else _cpp(text)
    return sorted(found, key=lambda change: (change.first, change.last, change.new))


#: What a binary operator could be.
_BINARY: dict[str, tuple[str, ...]] = {
    "+": ("-",),
    "-": ("+",),
    "*": ("/", "+"),
    "/": ("*",),
    "//": ("*",),
    "%": ("*",),
    "**": ("*",),
    "|": ("&",),
    "&": ("|",),
    "^": ("|",),
    "<<": (">>",),
    ">>": ("<<",),
    "<": ("<=", ">"),
    "<=": ("<", ">="),
    ">": (">=", "<"),
    ">=": (">", "<="),
    "==": ("!=",),
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
    "and": ("or",),
    "or": ("and",),
    "&&": ("||",),
    "||": ("&&",),
    "+=": ("-=",),
    "-=": ("+=",),
    "*=": ("/=",),
    "|=": ("&=",),
    "&=": ("|=",),
}
#: What a function could be, in either language.
_CALLED = {
    "min": "max",
    "max": "min",
    "floor": "ceil",
    "ceil": "floor",
    "nearbyint": "trunc",
    "rint": "trunc",
    "any": "all",
    "all": "any",
    "fmin": "fmax",
    "fmax": "fmin",
    "Min": "Max",
    "Max": "Min",
}
_COMPARING = {"<", "<=", ">", ">=", "==", "!=", "is", "is not", "in", "not in"}


def _kind(operator: str) -> str:
    if operator in _COMPARING:
        return "comparison"
    if operator in {"and", "or", "&&", "||"}:
        return "condition"
    return "mask" if operator.rstrip("=") in {"&", "|", "^", "<<", ">>"} else "operator"


def _numbers(text: str) -> tuple[str, ...]:
    """Return what a number could be: one more, one less, or of another sign."""
    if re.fullmatch(r"\d+", text):
        value = int(text)
        return (str(value + 1), str(value - 1)) if value else ("1",)
    return (f"-{text}",)


def _python(text: str) -> Iterator[Change]:
    starts = [0]
    for line in text.encode().split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    ascii_only = text.isascii()

    def at(line: int, column: int) -> int:
        place = starts[line - 1] + column
        return place if ascii_only else len(text.encode()[:place].decode())

    def first(node: ast.AST) -> int:
        return at(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def last(node: ast.AST) -> int:
        return at(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def between(one: ast.AST, other: ast.AST) -> Iterator[Change]:
        """Yield changes of the operator between two operands."""
        start, end = last(one), first(other)
        found = re.search(r"is\s+not|not\s+in|[a-z]+|[^\s\w()\[\]#\\]+", text[start:end])
        if found and "#" not in text[start:end]:
            operator = " ".join(found[0].split())
            for new in _BINARY.get(operator, ()):
                yield Change(start + found.start(), start + found.end(), new, _kind(operator))

    for node in _code(ast.parse(text)):
        match node:
            case ast.BinOp(left=left, right=right):
                yield from between(left, right)
            case ast.AugAssign(target=target, value=value):
                yield from between(target, value)
            case ast.Compare(left=left, comparators=others):
                for one, other in pairwise([left, *others]):
                    yield from between(one, other)
            case ast.BoolOp(values=values):
                for one, other in pairwise(values):
                    yield from between(one, other)
            case ast.UnaryOp(op=ast.USub() | ast.Not()):
                sign = 1 if text[first(node)] == "-" else len("not ")
                yield Change(first(node), first(node) + sign, "", "sign")
            case ast.Constant(value=bool(value)):
                yield Change(first(node), last(node), str(not value), "condition")
            case ast.Constant(value=int() | float()):
                for new in _numbers(text[first(node) : last(node)]):
                    yield Change(first(node), last(node), new, "number")
            case ast.If(test=test) | ast.IfExp(test=test):
                new = f"not ({text[first(test) : last(test)]})"
                yield Change(first(test), last(test), new, "condition")
            case ast.Call(func=ast.Name(id=name) as called) if name in _CALLED:
                yield Change(first(called), last(called), _CALLED[name], "bound")
            case ast.Expr(value=ast.Call()):
                yield Change(first(node), last(node), "pass", "left out")


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs: no type hints, no messages, no decorators of declarations, no imports."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in {
            "annotation",
            "returns",
            "decorator_list",
            "type_params",
            "bases",
            "keywords",
        } and (not isinstance(node, ast.Call)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(
                child, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom
            ):
                continue
            if isinstance(child, ast.AST):
                yield from _code(child)


#: What is no code in C++: comments, strings, directives, and the head of a template.
_NO_CODE = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\n])*\"|'(?:\\.|[^'\n])'|^[ \t]*#[^\n]*(?:\\\n[^\n]*)*"
    r"|template <[^{;]*?> *(?=\n|class|struct|void|inline|static|using|__)|static_assert\([^;]*;"
    r"|\boperator *[^\s\w(]+|__attribute__\(\([^)]*\)\)",
    re.DOTALL | re.MULTILINE,
)
_OPERATOR = re.compile(r"(?<= )(?:[-+*/%&|^]=?|<<|>>|[<>]=?|[=!]=|&&|\|\|)(?= |\n)")
_MINUS = re.compile(r"(?<=[(,=?:{] )-(?=[\w(])|(?<=[({])-(?=[\w(])|(?<=return )-(?=[\w(])")
_NOT = re.compile(r"!(?=[\w(])")
_NUMBER = re.compile(r"(?<![\w.])(?<!p[-+])(?:\d+\.\d*(?:[eE][-+]?\d+)?[fF]?|\d+)(?![\w.'])")
_NAME = re.compile(r"\b(?:" + "|".join(_CALLED) + r")(?=\()")
_IF = re.compile(r"\bif (?:constexpr )?\(")
#: A call or an assignment on a line of its own, not a declaration.
_STATEMENT = re.compile(
    r"^ +(?!return\b|using\b|if\b|for\b|else\b)[\w.\->\[\]:]+(?:\(.*\)| [-+*/|&]?= [^;]+);$",
    re.MULTILINE,
)


def _cpp(text: str) -> Iterator[Change]:
    code = _NO_CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for found in _OPERATOR.finditer(code):
        for new in _BINARY.get(found[0], ()):
            yield Change(*found.span(), new, _kind(found[0]))
    for pattern in (_MINUS, _NOT):
        for found in pattern.finditer(code):
            yield Change(*found.span(), "", "sign")
    for found in _NUMBER.finditer(code):
        for new in _numbers(found[0]):
            yield Change(*found.span(), new, "number")
    for found in _NAME.finditer(code):
        yield Change(*found.span(), _CALLED[found[0]], "bound")
    for found in _IF.finditer(code):
        end = _closing(code, found.end())
        yield Change(found.end(), end, f"!({text[found.end() : end]})", "condition")
    for found in _STATEMENT.finditer(code):
        yield Change(*found.span(), "", "left out")


def _closing(code: str, start: int) -> int:
    """Return where the bracket closes that was opened before a place."""
    depth = 1
    for place in range(start, len(code)):
        depth += {"(": 1, ")": -1}.get(code[place], 0)
        if not depth:
            return place
    raise ValueError("a bracket stays open")
