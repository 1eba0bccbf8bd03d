"""The syntax of formulas: text -> Python's syntax tree, or an error with its column."""

from __future__ import annotations

import ast
import re
import unicodedata
import warnings

from fusegen.base.errors import UserError

__all__ = ["MADE_OF", "MAX_LENGTH", "FormulaError", "read_tree"]

#: The longest formula, in characters.
MAX_LENGTH = 10_000
#: The largest number of calls, products and quotients in a formula, numbers not counted. Derivatives of more
#: would take too long.
MAX_OPERATIONS = 256
#: The message for anything else.
MADE_OF = "a formula is made of numbers, names, + - * / ** and calls"

_HINTS = {
    "^": "a power is written **",
    "=": "there is no assignment, and a comparison is < <= > or >=",
    "!": "a comparison is < <= > or >=",
    "#": "a formula has no comments",
}

#: Characters that do not belong in a formula. Names may have letters and digits of other alphabets.
_FOREIGN = re.compile(r"[^\w\s.+\-*/(),<>='\"]|[^\x20-\x7e]|==|(?<![<>\w\s])=", re.ASCII)


class FormulaError(UserError):
    """A mistake in a formula.

    Args:
        message: the mistake and how to correct it.
        column: the 1-based column of the mistake in the formula's text.
    """

    def __init__(self, message: str, column: int) -> None:
        self.message = message
        self.column = column
        super().__init__(f"{message} (column {column})")


def _of_names(character: str) -> bool:
    """Return whether a name may contain a character, by Python's rules."""
    plain = unicodedata.normalize("NFKC", character) == character
    return plain and f"a{character}".isidentifier()


def read_tree(text: str) -> tuple[ast.expr, int]:
    """Return the syntax tree of a formula, and how many columns its text is indented.

    Raises:
        FormulaError: if the text is too long, empty, malformed, or has a foreign character.
    """
    source = re.sub(r"[\t\r\n]", " ", text)
    if len(source) > MAX_LENGTH:
        raise FormulaError(f"the formula has {len(source)} characters; at most {MAX_LENGTH:,}", 1)
    if not source.strip():
        raise FormulaError("the formula is empty", 1)
    foreign = next((m for m in _FOREIGN.finditer(source) if not _of_names(m[0])), None)
    if foreign:
        message = (
            f"{foreign[0]!r} does not belong in a formula: {_HINTS.get(foreign[0][0], MADE_OF)}"
        )
        raise FormulaError(message, foreign.start() + 1)
    indent = len(source) - len(source.lstrip())
    source = source.strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python warns of "2x" and the like, and reads on
            tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        column = min(max(error.offset or 1, 1), len(source) + 1)
        message = f"the formula is malformed near {source[column - 1 :][:20]!r}"
        if re.search("never closed|unmatched|does not match|too many nested", error.msg):
            message = f"the formula is malformed: {error.msg}"
        elif "assignment" in error.msg or "keyword" in error.msg or source[column - 1] == "=":
            message += f": {_HINTS['=']}"
        elif source[-1] in "+-*/<>,":
            message, column = "the formula ends too early", len(source)
        elif "invalid decimal literal" in error.msg:
            message += ": put an operator between a number and a name (2*x)"
        raise FormulaError(message, indent + column) from None
    except (MemoryError, RecursionError):
        message = "the formula has too many operations, or nests too deeply"
        raise FormulaError(message, indent + 1) from None
    count = sum(_takes_time(node) for node in ast.walk(tree))
    if count > MAX_OPERATIONS:
        message = f"the formula has {count} calls and products; at most {MAX_OPERATIONS}: make steps of it"
        raise FormulaError(message, indent + 1)
    return tree, indent


def _takes_time(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div | ast.Pow):
        return not any(isinstance(side, ast.Constant) for side in (node.left, node.right))
    return isinstance(node, ast.Call)
