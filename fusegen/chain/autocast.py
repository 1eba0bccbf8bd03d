"""Which values of a chain are of float32 under torch.autocast, as they are in torch.

A value is of float32 if its step is (`ops/autocast.py`), or if one of the values or operands that it is
computed from is. As in torch, a single number does not decide the dtype of what is computed from it and a
larger value.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping

from fusegen.chain.span import Span
from fusegen.ops import find
from fusegen.ops.autocast import IN_FLOAT32, LOWERED
from fusegen.spec.model import Ref, Spec, Step

__all__ = ["float32_values", "promoting_operands"]


def float32_values(spec: Spec, device: str) -> frozenset[str]:
    """Return the labels of the steps whose values torch.autocast makes float32, for an x of 16 bits.

    Args:
        spec: the spec.
        device: "cpu" or "cuda".
    """
    found: set[str] = set()
    single: set[str] = set()
    listed, wide, alone = IN_FLOAT32[device], False, False
    numbers = {argument.name for argument in spec.arguments}
    for step in spec.steps:
        if step.indexes:
            continue
        alone = _is_single(step) or (alone and single.issuperset(step.mentions) and step.takes_x)
        given = found.intersection(step.mentions) - (set() if alone else single)
        wide = _is_listed(step, listed, numbers) or bool(given) or (wide and step.takes_x)
        wide = wide and not (step.op and step.op.name in LOWERED)
        if wide:
            found.add(step.label)
        if alone:
            single.add(step.label)
    return frozenset(found)


def promoting_operands(spec: Spec, span: Span) -> Mapping[str, frozenset[str]]:
    """Return the operands that make each value of a span float32 under torch.autocast, if they are.

    Those that are declared with this dtype do not: they are read as they are beside 16 bits. What the span
    starts from has the dtype that it has.

    Args:
        spec: the spec.
        span: the span.
    """
    known = {operand.name for operand in spec.operands if not operand.float32}
    found: dict[str, frozenset[str]] = {name: frozenset({name}) for name in span.handed}
    value: frozenset[str] = frozenset()
    for step in span.steps:
        found |= dict.fromkeys(step.parts, value)
        if step.indexes:
            continue
        value = value if step.takes_x else frozenset()
        value = value.union(
            known.intersection(_promoting(step)),
            *(found[name] for name in step.mentions if name in found),
        )
        if step.op and step.op.name in LOWERED:
            value = frozenset()
        found[step.label] = value
    return found


def _promoting(step: Step) -> Iterator[str]:
    """Yield the tensors that a step combines with its input; a weight of torch's functions is none."""
    others = (*step.op.optional, *step.op.conditions, step.op.classes) if step.op else ()
    for slot, given in step.operands.items():
        if isinstance(given, Ref) and slot not in others:
            yield given.name


def _is_single(step: Step) -> bool:
    """Whether a step reduces everything to one number."""
    if step.op is None:
        return False
    if step.attributes.get("reduction", "none") != "none":
        return True
    return bool(step.op.dims) and all(step.attributes[name] is None for name in step.op.dims)


def _is_listed(step: Step, listed: Collection[str], numbers: Collection[str]) -> bool:
    """Whether a step is an op of float32, or its formula has one."""
    if step.op is not None and not step.split:
        return step.op.name in listed
    try:
        parsed = ast.parse(step.text, mode="eval")
    except SyntaxError:  # a gate of two parts by its name
        return False
    return any(_name(node, numbers) in listed for node in ast.walk(parsed))


def _name(node: ast.AST, numbers: Collection[str]) -> str:
    """Return the name of the op that a part of a formula is in torch; "" if it calculates with no tensor."""
    if not _has_tensors(node, numbers):
        return ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        op = find(node.func.id)
        return op.name if op else node.func.id
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return "pow"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return "" if _has_tensors(node.left, numbers) else "reciprocal"
    return ""


def _has_tensors(node: ast.AST, numbers: Collection[str]) -> bool:
    """Whether a part of a formula has a name of a tensor."""
    called = {id(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)}
    named = {p.id for p in ast.walk(node) if isinstance(p, ast.Name) and id(p) not in called}
    return not named <= {*numbers, "pi"}
