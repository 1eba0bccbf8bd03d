"""Derivatives of programs: `vjp` and `jvp` take a program and return a program, to any order.

Each node is differentiated alone, by sympy on its own expression; the chain rule runs on the DAG.
One rule gives the rest: the adjoint of a broadcast is a sum, and the adjoint of a sum is a
broadcast. (Griewank & Walther, Evaluating Derivatives, 2008, ch. 3.)
"""

from __future__ import annotations

from typing import Literal

import sympy as sp

from fusegen.program import Builder, Input, Kind, Map, Output, Program, Reduce, Value, arguments


def vjp(program: Program, name: str) -> Program:
    """Return the program of the vector-Jacobian product.

    Its inputs are the program's inputs and a cotangent `grad_<output>` for each output; its outputs
    are `grad_<input>` for each differentiable input that an output depends on.

    Args:
        program: what to differentiate.
        name: the name of the new program, such as "backward".
    """
    nodes = program.nodes()
    builder = Builder()
    builder.adopt((*program.inputs, *nodes))
    builder.inputs = list(program.inputs)
    active = _active(nodes)
    adjoints: dict[Value, list[Value]] = {}
    for output_name, output in program.outputs.items():
        cotangent = builder.input(f"grad_{output_name}", output.like.kind)
        arrived = builder.sum_to(f"grad_{output_name}", cotangent, output.value.kind, cotangent.kind)
        adjoints.setdefault(output.value, []).append(arrived)
    for node in reversed(nodes):
        if node not in active or node not in adjoints:
            continue
        total = _total(builder, node, adjoints.pop(node))
        if isinstance(node, Input):
            adjoints[node] = [total]
            continue
        for arg in dict.fromkeys(arguments(node)):
            if arg in active:
                part = _pull(builder, node, arg, total, active)
                if part is not None:
                    adjoints.setdefault(arg, []).append(part)
    outputs = {
        f"grad_{i.name}": Output(adjoints[i][0], i)
        for i in program.inputs
        if i.differentiable and i in adjoints
    }
    return Program(name, tuple(builder.inputs), outputs)


def jvp(program: Program, name: str) -> Program:
    """Return the program of the Jacobian-vector product.

    Its inputs are the program's inputs and a tangent `tangent_<input>` for each differentiable
    input; its outputs are `tangent_<output>` for each output that depends on one.

    Args:
        program: what to differentiate.
        name: the name of the new program.
    """
    nodes = program.nodes()
    builder = Builder()
    builder.adopt((*program.inputs, *nodes))
    builder.inputs = list(program.inputs)
    active = _active(nodes)
    tangents: dict[Value, Value] = {}
    for source in program.inputs:
        if source.differentiable:
            tangents[source] = builder.input(f"tangent_{source.name}", source.kind)
    for node in nodes:
        if node in active and not isinstance(node, Input):
            parts = [
                _push(builder, node, arg, tangents[arg], active)
                for arg in dict.fromkeys(arguments(node))
                if arg in tangents
            ]
            present = [part for part in parts if part is not None]
            if present:
                tangents[node] = _added(builder, f"tangent_{node.name}", present)
    outputs = {
        f"tangent_{output_name}": Output(tangents[output.value], output.like)
        for output_name, output in program.outputs.items()
        if output.value in tangents
    }
    return Program(name, tuple(builder.inputs), outputs)


def _active(nodes: list[Value]) -> set[Value]:
    """Return the values that depend on a differentiable input."""
    active: set[Value] = set()
    for node in nodes:
        if isinstance(node, Input):
            if node.differentiable:
                active.add(node)
        elif isinstance(node, Reduce) and node.shift_invariant:
            continue  # the program does not depend on it, so nothing runs through it
        elif any(arg in active for arg in arguments(node)):
            active.add(node)
    return active


def _added(builder: Builder, name: str, parts: list[Value]) -> Value:
    """Return the sum of all parts as one value."""
    if len(parts) == 1:
        return parts[0]
    return builder.map(name, sp.Add(*(part.symbol for part in parts)), "sum over all uses")


def _total(builder: Builder, node: Value, parts: list[Value]) -> Value:
    """Return a node's adjoint: what its uses passed to it, added up and summed to its kind.

    The parts are added before they are summed over rows, so that one sum leaves the kernel. A part
    that does not vary along an axis stands there once for the whole axis, so as part of a sum over
    that axis it is spread evenly.
    """
    name = f"grad_{node.name}"
    joint = Kind.SCALAR
    for part in parts:
        joint |= part.kind
    spread = []
    for part in parts:
        expr: sp.Expr = part.symbol
        axes: tuple[tuple[Kind, Literal["rows", "cols"]], ...] = (
            (Kind.ROW, "rows"),
            (Kind.COL, "cols"),
        )
        for axis, extent in axes:
            if axis in joint and axis not in part.kind and axis not in node.kind:
                expr = expr / builder.extent(extent).symbol
        spread.append(builder.map(name, expr, "spread over an axis"))
    return builder.sum_to(name, _added(builder, name, spread), node.kind, joint)


def _pull(
    builder: Builder, node: Value, arg: Value, cotangent: Value, active: set[Value]
) -> Value | None:
    """Return what `node` passes of its cotangent to `arg`, or None where it passes nothing.

    What goes to a column or a scalar is still to be summed; `_total` does that.
    """
    name = f"grad_{arg.name}"
    if isinstance(node, Map):
        outside, inside = _split(builder, sp.diff(node.expr, arg.symbol), node, arg)
        if inside == 0:
            return None
        partial = _named_partial(builder, node, arg, inside, active)
        product = builder.map(name, cotangent.symbol * partial, f"through {node.name}")
        if arg.kind == Kind.ROW:
            summed = builder.sum_to(name, product, arg.kind, node.kind)
            return builder.map(name, summed.symbol * outside, f"through {node.name}")
        return builder.broadcast_sum(name, product, arg.kind, node.kind)
    assert isinstance(node, Reduce)
    if node.op == "sum":
        return cotangent  # the adjoint of a sum is a broadcast
    share = _share_of_maximum(builder, node)
    return builder.map(name, cotangent.symbol * share.symbol, f"through {node.name}")


def _push(
    builder: Builder, node: Value, arg: Value, tangent: Value, active: set[Value]
) -> Value | None:
    """Return what the tangent of `arg` adds to that of `node`, or None where it adds nothing."""
    name = f"tangent_{node.name}"
    if isinstance(node, Map):
        partial = _named_partial(builder, node, arg, sp.diff(node.expr, arg.symbol), active)
        if partial == 0:
            return None
        return builder.map(name, tangent.symbol * partial, f"of {arg.name}")
    assert isinstance(node, Reduce)
    if node.op == "max":
        share = _share_of_maximum(builder, node)
        tangent = builder.map(f"{name}_term", tangent.symbol * share.symbol, f"of {arg.name}")
    return builder.sum_to(name, tangent, node.kind, arg.kind)


def _split(
    builder: Builder, partial: sp.Expr, node: Map, arg: Value
) -> tuple[sp.Expr, sp.Expr]:
    """Split a partial derivative into a factor that leaves the sum over a row, and the rest.

    sum(c e / s^2) = sum(c e) / s^2: the sum no longer waits for s, which saves a pass over the row.
    """
    if arg.kind != Kind.ROW or node.kind == Kind.ROW:
        return sp.Integer(1), partial
    coefficient, factors = sp.factor_terms(partial).as_coeff_mul()
    inside = [f for f in factors if _varies_along_columns(builder, f)]
    outside = [f for f in factors if f not in inside]
    return sp.Mul(coefficient, *outside), sp.Mul(*inside)


def _varies_along_columns(builder: Builder, expr: sp.Expr) -> bool:
    return any(Kind.COL in builder.value(s).kind for s in expr.free_symbols)


def _named_partial(
    builder: Builder, node: Map, arg: Value, partial: sp.Expr, active: set[Value]
) -> sp.Expr:
    """Return d node / d arg: a number or symbol as it is, anything longer as a node of its own.

    What varies along columns alone, or not at all, stays inside the expression: as a node, its own
    adjoint would be a sum over rows in the middle of the next derivative.
    """
    partial = sp.factor_terms(partial)
    varies = any(Kind.ROW in builder.value(s).kind for s in partial.free_symbols)
    if partial.is_Symbol or not varies:
        return partial
    sole = sum(1 for a in node.args if a in active) == 1
    name = f"d_{node.name}" if sole else f"d_{node.name}_{arg.name.removeprefix(node.name + '_')}"
    return builder.map(name, partial, f"d {node.name} / d {arg.name}").symbol


def _share_of_maximum(builder: Builder, node: Reduce) -> Value:
    """Return each element's share in its maximum: evenly among the largest, as torch.amax has it."""
    largest = builder.map(
        f"is_{node.name}",
        sp.Piecewise((1, sp.Eq(node.arg.symbol, node.symbol)), (0, True)),
        f"where {node.arg.name} is the largest",
    )
    count = builder.sum_to(f"{node.name}_count", largest, node.kind, node.arg.kind)
    return builder.map(f"d_{node.name}", largest.symbol / count.symbol, "shared among ties")
