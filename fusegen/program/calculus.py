"""Derivatives of programs: `vjp` and `jvp` turn a program into another program, to any order.

Sympy differentiates each node's own expression; the chain rule runs on the DAG. One rule gives the rest: the
adjoint of a broadcast is a sum, and the adjoint of a sum is a broadcast. (Griewank & Walther, Evaluating
Derivatives, 2008, ch. 3.)
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from fusegen.atoms import sigmoid
from fusegen.atoms.choices import Choice, choices_outside, masked
from fusegen.atoms.complements import complemented
from fusegen.program.access import ending
from fusegen.program.builder import Builder
from fusegen.program.ir import (
    Input,
    Map,
    Output,
    Program,
    Reduce,
    Take,
    Value,
    arguments,
    topological,
)
from fusegen.program.kind import Kind, joined


def vjp(program: Program, name: str) -> Program:
    """Return the program of the vector-Jacobian product.

    Its inputs are the program's inputs and a cotangent `grad_<output>` for each output. Its outputs are
    `grad_<input>` for each differentiable input that an output depends on.

    Args:
        program: what to differentiate.
        name: the name of the new program, such as "backward".
    """
    nodes, rows = _rows_before_their_elements(program)
    builder = Builder()
    builder.adopt((*program.inputs, *nodes))
    builder.inputs = list(program.inputs)
    active = _active(nodes)
    adjoints: dict[Value, list[sp.Expr]] = {}
    cotangents = _cotangents(builder, program)
    for output_name, output in program.outputs.items():
        cotangent = cotangents[output_name]
        arrived = builder.sum_to(
            f"grad_{output_name}", cotangent, output.value.kind, cotangent.kind
        )
        adjoints.setdefault(output.value, []).append(arrived.symbol)
    outputs: dict[Value, Value] = {}
    for node in reversed(nodes):
        if node not in active or node not in adjoints:
            continue
        total = _total(builder, node, adjoints.pop(node))
        if total is None:
            continue
        if isinstance(node, Input):
            outputs[node] = _spread(builder, node, total)
            continue
        if node in rows:
            row, index = rows[node]
            adjoints.setdefault(row, []).append(_put_back(builder, row, index, total))
            continue
        for arg in dict.fromkeys(arguments(node)):
            if arg in active:
                part = _pull(builder, node, arg, total, active)
                if part != 0:
                    adjoints.setdefault(arg, []).append(part)
    found = {f"grad_{i.name}": Output(outputs[i], i) for i in program.inputs if i in outputs}
    if not found:  # the derivative is 0 everywhere, as for sign
        zero = builder.map("zero", sp.Integer(0), "no output varies with any input")
        moving = [i for i in program.inputs if i.differentiable]
        full = [i for i in moving if i.kind == Kind.FULL]
        found = {f"grad_{i.name}": Output(zero, i) for i in full or moving}
    return Program(name, tuple(builder.inputs), _with_all_parts(builder, program, found))


def _rows_before_their_elements(
    program: Program,
) -> tuple[list[Value], dict[Value, tuple[Value, Input]]]:
    """Return the program's nodes, arguments first, and the row and index of each selected element.

    The cotangent of an element goes to its row, where the cotangents of the row's other uses are added. So
    the derivative for a class, softmax(x) - 1, is exactly 0 if the softmax is 1. If the cotangents went to
    the operands of the element and the row instead, they would be multiplied first, and the difference of two
    roundings would remain.
    """
    known = {value.name: value for value in program.nodes()}
    rows: dict[Value, tuple[Value, Input]] = {
        value: (known[value.whole.name], value.whole.index)
        for value in known.values()
        if isinstance(value, Map) and value.whole and value.whole.name in known
    }

    def below(value: Value) -> tuple[Value, ...]:
        return (*arguments(value), *(rows[value][:1] if value in rows else ()))

    roots = (*(output.value for output in program.outputs.values()), *program.saved)
    return topological(roots, below), rows


def _put_back(builder: Builder, row: Value, index: Input, cotangent: Value) -> sp.Expr:
    """Return what a selected element passes to its row: the cotangent in its column, 0 elsewhere."""
    there = sp.Eq(builder.index().symbol, index.symbol)
    put = sp.Piecewise((cotangent.symbol, there), (0, True))
    return builder.map(f"grad_{row.name}", put, f"what column {index.name} passed on").symbol


def _cotangents(builder: Builder, program: Program) -> dict[str, Input]:
    """Return the cotangent of each output as an input, which lies in its tensor as the output does."""
    found: dict[str, Input] = {}
    for name, output in program.returned.items():
        parts = builder.read(f"grad_{name}", output.kind, output.access(name))
        found |= {f"{name}{ending(part.access.place)}": part for part in parts}
    return found


def _with_all_parts(
    builder: Builder, program: Program, found: dict[str, Output]
) -> dict[str, Output]:
    """Return a derivative's outputs.

    If one part of a tensor is among them, so are the others, even if they are 0.
    """
    known = {o.like.tensor for o in found.values()}
    outputs = {}
    for source in program.inputs:
        name = f"grad_{source.name}"
        if name in found:
            outputs[name] = found[name]
        elif source.tensor in known:
            zero = builder.map("zero", sp.Integer(0), "nothing varies with this part")
            outputs[name] = Output(_spread(builder, source, zero), source)
    return outputs


def jvp(program: Program, name: str) -> Program:
    """Return the program of the Jacobian-vector product.

    Its inputs are the program's inputs and a tangent `tangent_<input>` for each differentiable input. Its
    outputs are `tangent_<output>` for each output that depends on one.

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
    known = {(i.tensor, i.access.place): i for i in program.inputs}
    for source in program.inputs:
        if source.differentiable and not source.access.place:
            made = builder.read(f"tangent_{source.name}", source.kind, source.access)
            tangents |= {known[source.tensor, own.access.place]: own for own in made}
    for node in nodes:
        if node in active and not isinstance(node, Input):
            parts = [
                _push(builder, node, arg, tangents[arg], active)
                for arg in dict.fromkeys(arguments(node))
                if arg in tangents
            ]
            added = sp.Add(*parts)
            if added != 0:
                tangents[node] = builder.map(f"tangent_{node.name}", added)
    outputs = {
        f"tangent_{output_name}": replace(output, value=tangents[output.value])
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
            continue  # the program does not depend on it, so it passes on no derivative
        elif any(arg in active for arg in arguments(node)):
            active.add(node)
    return active


def _total(builder: Builder, node: Value, parts: list[sp.Expr]) -> Value | None:
    """Return a node's adjoint: the parts from all its uses, added and summed to its kind.

    The parts are added before they are summed over rows, so that the kernel computes only one sum. Their
    common factors are taken out: y (g - d) loses fewer digits than y g - y d. A part that does not vary along
    an axis counts once for the whole axis. If it joins a sum over that axis, it is divided evenly among the
    elements.
    """
    joint = joined(map(builder.kind, parts))
    spread = []
    for part in parts:
        missing = joint & ~builder.kind(part) & ~node.kind
        spread.append(part / sp.Mul(*(e.symbol for e in builder.extents(missing))))
    added = sp.Add(*spread)
    if added == 0:
        return None
    name = f"grad_{node.name}"
    note = "sum over all uses" if len(parts) > 1 else ""
    total = builder.map(name, sp.factor_terms(added) if len(parts) > 1 else added, note)
    return builder.sum_to(name, total, node.kind, joint)


def _spread(builder: Builder, node: Input, total: Value) -> Value:
    """Return the adjoint of a column as a sum over rows, even if it is known without one."""
    if node.kind != Kind.COL or (isinstance(total, Reduce) and total.kind == Kind.COL):
        return total
    if isinstance(total, Reduce):
        part = total.arg  # one value per row
    else:
        part = builder.map(f"{total.name}_part", total.symbol / builder.extent("rows").symbol)
    name = f"grad_{node.name}"
    return builder.reduce(name, "sum", builder.broadcast(f"{name}_part", part), Kind.COL)


def _pull(
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
        return _put_back(builder, arg, node.index, cotangent)
    assert isinstance(node, Reduce)
    if node.op == "sum":  # the adjoint of a sum is a broadcast
        if isinstance(cotangent, Map) and cotangent.kind == Kind.ROW:
            return cotangent.expr  # it may share factors with other parts
        return cotangent.symbol
    return cotangent.symbol * _share_of_maximum(builder, node).symbol


def _push(builder: Builder, node: Value, arg: Value, tangent: Value, active: set[Value]) -> sp.Expr:
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
