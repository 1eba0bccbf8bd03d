"""Finds names in a spec that would hide names used by a generated package's functions."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable

from fusegen.base.errors import SpecError
from fusegen.chain import Chains
from fusegen.spec.model import Argument, Operand

__all__ = ["RESULT", "check_hidden"]

#: The name in `apply` of a segment's value, beside the values that it keeps.
RESULT = "y_"


def check_hidden(chain: Chains, text: str) -> None:
    """Refuse a name that hides something in a package's `__init__.py`, whose text is `text`.

    A parameter hides names of the module and of Python that the function calls. It is itself lost if the
    function has a variable of that name.

    Raises:
        SpecError: an argument or an operand has such a name.
    """
    tree = ast.parse(text)
    made = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef))
    known = {*dir(builtins), *(n.name for n in made)}
    assigned = (n for s in tree.body if isinstance(s, ast.Assign) for n in _stored(ast.walk(s)))
    known |= set(assigned)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(a.asname or a.name).partition(".")[0] for a in node.names}
    hidden: set[str] = set()
    kept: set[str] = set()  # values that functions keep by their names
    values = {
        n for segment in chain.segments for n in (*segment.span.begins, *segment.span.returned)
    }
    own = chain.spec.computed
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        parameters = {a.arg for a in (*function.args.args, *function.args.kwonlyargs)}
        inside = [n for statement in function.body for n in ast.walk(statement)]
        roots = [n.func for n in inside if isinstance(n, ast.Call)]
        roots += [n.value for n in inside if isinstance(n, ast.Attribute)]
        called = {n.id for n in roots if isinstance(n, ast.Name) and n.id in known}
        hidden |= called & (parameters | (values if function.name.startswith("apply") else set()))
        kept |= own.intersection(_stored(inside))
        hidden |= called & kept
        if function.name != "__init__":  # the constructor assigns defaults to its arguments
            hidden |= set(_stored(inside)) & parameters
    hidden |= {RESULT} & values
    declared: list[Argument | Operand] = [*chain.spec.arguments, *chain.spec.operands]
    lines = {given.name: given.line for given in declared}
    lines |= {
        name: step.line for step in chain.spec.steps for name in step.names if name in values | kept
    }
    for name, line in lines.items():
        if name in hidden:
            message = (
                f"{name!r} cannot be a name here: the package's own Python code uses it; choose "
                f"another, such as {name}_"
            )
            raise SpecError(message, chain.spec.path, line)


def _stored(nodes: Iterable[ast.AST]) -> list[str]:
    """Return the names that are assigned to."""
    names = (n for n in nodes if isinstance(n, ast.Name))
    return [n.id for n in names if isinstance(n.ctx, ast.Store)]
