"""Derivatives of single nodes: what a node passes of its cotangent to an argument, and of a tangent on.

Sympy differentiates the expression of a map. The adjoint of a sum is a broadcast, that of a maximum goes to
the largest elements, and that of a selected element back into its column.
"""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import sigmoid
from fusegen.atoms.choices import Choice, choices_outside, masked
from fusegen.atoms.complements import complemented
from fusegen.program.builder import Builder
from fusegen.program.ir import Input, Map, Reduce, Take, Value
from fusegen.program.kind import Kind

__all__ = ["pull", "push", "put_back"]


def put_back(builder: Builder, row: Value, index: Input, cotangent: Value) -> sp.Expr:
    """Return what a selected element passes to its row: the cotangent in its column, 0 elsewhere."""
    there = sp.Eq(builder.index().symbol, index.symbol)
    put = sp.Piecewise((cotangent.symbol, there), (0, True))
    return builder.map(f"grad_{row.name}", put, f"what column {index.name} passed on").symbol


def pull(
    builder: Builder, node: Value, arg: Value, cotangent: Value, active: set[Value]
) -> sp.Expr:
    """Return what `node` passes of its cotangent to `arg`.

    For a column or a scalar this is not yet summed; `_total` does that.
    """
    name = f"grad_{arg.name}"
    if isinstance(node, Map):
        outside, inside = _split(builder, _derivative(node, arg), node, arg)

        def through(partial: sp.Expr, within: Choice) -> sp.Expr:
            return cotangent.symbol * _named_partial(builder, node, arg, partial, active, within)

        product = masked(inside, through)
        if product == 0:
            return product
        if arg.kind == Kind.ROW:
            passed = builder.map(name, product, f"through {node.name}")
            passed = builder.sum_to(name, passed, arg.kind, node.kind)
            return masked(outside, lambda factor, _: passed.symbol * factor)
        lacking = node.kind & ~arg.kind & ~builder.kind(product)
        return product * sp.Mul(*(e.symbol for e in builder.extents(lacking)))
    if isinstance(node, Take):
        return put_back(builder, arg, node.index, cotangent)
    assert isinstance(node, Reduce)
    if node.op == "sum":  # the adjoint of a sum is a broadcast
        if isinstance(cotangent, Map) and cotangent.kind == Kind.ROW:
            return cotangent.expr  # it may share factors with other parts
        return cotangent.symbol
    return cotangent.symbol * _share_of_maximum(builder, node).symbol


def push(builder: Builder, node: Value, arg: Value, tangent: Value, active: set[Value]) -> sp.Expr:
    """Return what the tangent of `arg` adds to that of `node`."""
    name = f"tangent_{node.name}"
    if isinstance(node, Map):

        def through(partial: sp.Expr, within: Choice) -> sp.Expr:
            return tangent.symbol * _named_partial(builder, node, arg, partial, active, within)

        return masked(_derivative(node, arg), through)
    if isinstance(node, Take):
        return builder.take(tangent, node.index).symbol
    assert isinstance(node, Reduce)
    if node.op == "max":
        share = _share_of_maximum(builder, node)
        tangent = builder.map(f"{name}_term", tangent.symbol * share.symbol, f"of {arg.name}")
    return builder.sum_to(name, tangent, node.kind, arg.kind).symbol


def _derivative(node: Map, arg: Value) -> sp.Expr:
    """Return d node / d arg, with its choices moved outside of its products."""
    partial = sp.diff(node.expr, arg.symbol)
    if partial.has(sigmoid):  # the product rule yields s(x) s(-x)^2 - s(x)^2 s(-x)
        partial = sp.factor_terms(partial)
    return choices_outside(complemented(partial))


def _split(builder: Builder, partial: sp.Expr, node: Map, arg: Value) -> tuple[sp.Expr, sp.Expr]:
    """Split a partial derivative into a factor that leaves the sum over a row, and the rest.

    sum(c e / s^2) = sum(c e) / s^2: the sum no longer waits for s, which saves a stage over the row.
    """
    if arg.kind != Kind.ROW or node.kind == Kind.ROW:
        return sp.Integer(1), partial
    coefficient, factors = sp.factor_terms(partial).as_coeff_mul()
    inside = [f for f in factors if Kind.COL in builder.kind(f)]
    outside = [f for f in factors if f not in inside]
    return sp.Mul(coefficient, *outside), sp.Mul(*inside)


def _named_partial(
    builder: Builder,
    node: Map,
    arg: Value,
    partial: sp.Expr,
    active: set[Value],
    within: Choice,
) -> sp.Expr:
    """Return d node / d arg: a number or symbol as it is, anything longer as a node of its own.

    The node is 0 outside of the choice around it, because its own derivative may not exist there.

    Partial derivatives of a smaller kind than full stay inside the expression. Lowering hoists them anyway.
    As a column's node, such a derivative would have an adjoint that is a sum over rows, in the middle of the
    next derivative.
    """
    partial = sp.factor_terms(partial)
    if partial.is_Symbol or builder.kind(partial) != Kind.FULL:
        return partial
    sole = sum(1 for a in node.args if a in active) == 1
    name = f"d_{node.name}" if sole else f"d_{node.name}_{arg.name.removeprefix(node.name + '_')}"
    return builder.map(name, within(partial), f"d {node.name} / d {arg.name}").symbol


def _share_of_maximum(builder: Builder, node: Reduce) -> Value:
    """Return each element's share in its maximum: ties share evenly, as in torch.amax."""
    largest = builder.map(
        f"is_{node.name}",
        sp.Piecewise((1, sp.Eq(node.arg.symbol, node.symbol)), (0, True)),
        f"where {node.arg.name} is the largest",
    )
    count = builder.sum_to(f"{node.name}_count", largest, node.kind, node.arg.kind)
    return builder.map(f"d_{node.name}", largest.symbol / count.symbol, "shared among ties")
