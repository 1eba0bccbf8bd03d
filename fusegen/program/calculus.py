"""Derivatives of programs: `vjp` and `jvp` turn a program into another program, to any order.

Sympy differentiates each node's own expression; the chain rule runs on the DAG. One rule gives the rest: the
adjoint of a broadcast is a sum, and the adjoint of a sum is a broadcast. (Griewank & Walther, Evaluating
Derivatives, 2008, ch. 3.)
"""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from fusegen.program import presence
from fusegen.program.access import ending
from fusegen.program.builder import Builder
from fusegen.program.ir import (
    Input,
    Map,
    Output,
    Program,
    Reduce,
    Value,
    arguments,
    topological,
)
from fusegen.program.kind import Kind, joined
from fusegen.program.node_derivatives import pull, push, put_back
from fusegen.program.presence import Presence

#: A term of an adjoint, and its presence.
_Part = tuple[sp.Expr, Presence]


def vjp(program: Program, name: str) -> Program:
    """Return the program of the vector-Jacobian product.

    Its inputs are the program's inputs and a cotangent `grad_<output>` for each output. Its outputs are
    `grad_<input>` for each differentiable input that an output depends on. Of the outputs of a forward pass
    some cotangents may be absent (presence.py): any numbers may stand for these.

    Args:
        program: what to differentiate.
        name: the name of the new program, such as "backward".
    """
    nodes, rows = _rows_before_their_elements(program)
    builder = Builder()
    builder.adopt((*program.inputs, *nodes))
    builder.inputs = list(program.inputs)
    active = _active(nodes)
    cotangents = _cotangents(builder, program)
    optional = program.optional or tuple(dict.fromkeys(c.tensor for c in cotangents.values()))
    whole = presence.of(optional)
    adjoints = _arriving(builder, program, cotangents, whole)
    outputs: dict[Value, Value] = {}
    made_of: dict[str, Presence] = {}
    for node in reversed(nodes):
        if node not in active or node not in adjoints:
            continue
        parts = adjoints.pop(node)
        several = isinstance(node, Input) and node.access.count > 1  # one tensor for all parts
        present = whole if several else presence.either(own for _, own in parts)
        total = _total(builder, node, _where_present(builder, node, parts, present))
        if total is None:
            continue
        if isinstance(node, Input):
            outputs[node] = _spread(builder, node, total)
            made_of |= {f"grad_{node.name}": present} if present != whole else {}
            continue
        if node in rows:
            row, index = rows[node]
            adjoints.setdefault(row, []).append((put_back(builder, row, index, total), present))
            continue
        needed = presence.needed_by(node)
        passed = presence.both(present, needed)
        for arg in dict.fromkeys(arguments(node)):
            if arg in active:
                selects = needed != presence.ALWAYS
                term = total.symbol if selects else pull(builder, node, arg, total, active)
                if term != 0:
                    adjoints.setdefault(arg, []).append((term, passed))
    found = {f"grad_{i.name}": Output(outputs[i], i) for i in program.inputs if i in outputs}
    if not found:  # the derivative is 0 everywhere, as for sign
        zero = builder.map("zero", sp.Integer(0), "no output varies with any input")
        moving = [i for i in program.inputs if i.differentiable]
        full = [i for i in moving if i.kind == Kind.FULL]
        found = {f"grad_{i.name}": Output(zero, i) for i in full or moving}
    made = Program(name, (), _with_all_parts(builder, program, found))
    used = set(made.nodes())
    inputs = tuple(i for i in builder.inputs if i in used or not presence.is_presence(i))
    return replace(made, inputs=inputs, optional=optional, presence=made_of)


def _where_present(
    builder: Builder, node: Value, parts: list[_Part], present: Presence
) -> list[sp.Expr]:
    """Return the terms of a node's adjoint, each 0 where it is absent.

    Args:
        builder: where the nodes are made.
        node: the node.
        parts: the parts from all its uses, with the presence of each.
        present: the presence of the adjoint. What has the same needs no selection.
    """
    terms: dict[Presence, list[sp.Expr]] = {}
    for term, own in parts:
        terms.setdefault(own, []).append(term)
    found = terms.pop(present, [])
    for own, alike in terms.items():
        added = _added(builder, node, alike)
        if added != 0:
            found.append(presence.selected(builder, f"grad_{node.name}", added, own))
    return found


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


def _cotangents(builder: Builder, program: Program) -> dict[str, Input]:
    """Return the cotangent of each output as an input, which lies in its tensor as the output does."""
    found: dict[str, Input] = {}
    for name, output in program.returned.items():
        parts = builder.read(f"grad_{name}", output.kind, output.access(name))
        found |= {f"{name}{ending(part.access.place)}": part for part in parts}
    return found


def _arriving(
    builder: Builder, program: Program, cotangents: dict[str, Input], whole: Presence
) -> dict[Value, list[_Part]]:
    """Return what arrives at each value that is an output.

    Args:
        builder: where the nodes are made.
        program: what is differentiated.
        cotangents: the cotangent of each output.
        whole: the presence of what any cotangent of the forward pass's outputs suffices for.
    """
    found: dict[Value, list[_Part]] = {}
    for name, output in program.outputs.items():
        cotangent = cotangents[name]
        part = builder.sum_to(f"grad_{name}", cotangent, output.value.kind, cotangent.kind)
        own = presence.of([cotangent.tensor])
        if program.optional:  # an absent gradient has no cotangent; any other is taken for present
            own = program.presence.get(name, whole)
        found.setdefault(output.value, []).append((part.symbol, own))
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
        elif source.source == "tensor" and source.tensor in known:
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
                push(builder, node, arg, tangents[arg], active)
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
    added = _added(builder, node, parts)
    if added == 0:
        return None
    name = f"grad_{node.name}"
    total = builder.map(name, added, "sum over all uses" if len(parts) > 1 else "")
    return builder.sum_to(name, total, node.kind, joined(map(builder.kind, parts)))


def _added(builder: Builder, node: Value, parts: list[sp.Expr]) -> sp.Expr:
    """Return the sum of a node's parts before it is summed to the node's kind."""
    joint = joined(map(builder.kind, parts))
    spread = []
    for part in parts:
        missing = joint & ~builder.kind(part) & ~node.kind
        spread.append(part / sp.Mul(*(e.symbol for e in builder.extents(missing))))
    added = sp.Add(*spread)
    return sp.factor_terms(added) if len(parts) > 1 else added


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
