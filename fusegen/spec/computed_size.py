"""Sizes that are computed from int arguments, such as `(heads + 2 * groups) * width`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

__all__ = ["ComputedSize", "computed_size"]

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
#: The longest text of a size.
_LONGEST = 200


@dataclass(frozen=True)
class ComputedSize:
    """A size that is computed from int arguments.

    Args:
        text: the expression, as Python has it.
        names: the arguments in it.
    """

    text: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return self.text

    def number(self, values: Mapping[str, int]) -> int:
        """Return the size for some values of the arguments."""
        return _number(ast.parse(self.text, mode="eval").body, values)

    def part(self, count: int) -> ComputedSize:
        """Return one of so many equal parts of it."""
        return ComputedSize(f"({self.text}) // {count}", self.names)


def computed_size(text: str, arguments: Collection[str]) -> ComputedSize | None:
    """Return the size that a text says, or None if it says none.

    Args:
        text: sums, differences, products and whole quotients (`//`) of integers and arguments.
        arguments: the names of the int arguments.
    """
    if len(text) > _LONGEST or "\n" in text:
        return None
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return None
    names: dict[str, None] = {}
    for node in _nodes(tree):
        if isinstance(node, ast.Name) and node.id in arguments:
            names[node.id] = None
        elif not _is_known(node):
            return None
    return ComputedSize(ast.unparse(tree), (*names,)) if names else None


def _is_known(node: ast.expr) -> bool:
    """Whether a node is an integer or one of the operations."""
    if isinstance(node, ast.BinOp):
        return type(node.op) in _OPERATORS
    return isinstance(node, ast.Constant) and type(node.value) is int


def _nodes(tree: ast.expr) -> Iterator[ast.expr]:
    """Yield the operations, numbers and names of an expression, in the order in which it has them."""
    yield tree
    if isinstance(tree, ast.BinOp):
        yield from _nodes(tree.left)
        yield from _nodes(tree.right)


def _number(tree: ast.expr, values: Mapping[str, int]) -> int:
    if isinstance(tree, ast.BinOp):
        operation = _OPERATORS[type(tree.op)]
        return operation(_number(tree.left, values), _number(tree.right, values))
    if isinstance(tree, ast.Name):
        return values[tree.id]
    assert isinstance(tree, ast.Constant) and isinstance(tree.value, int)
    return tree.value
