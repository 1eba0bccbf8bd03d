"""Gradients that no kernel writes, since another tensor has the same numbers.

x and r of `x + r` have one gradient, and if nothing follows the addition, it is the cotangent of the value.
autograd then gets one tensor for both, as from torch's own addition. Each gradient that is left out saves a
pass over memory: a fifth of the backward of a residual sum and its norm.
"""

from __future__ import annotations

from dataclasses import replace

from fusegen.program.ir import Input, Output, Program, Shared, Value
from fusegen.program.kind import Kind

__all__ = ["share_gradients"]


def share_gradients(program: Program) -> Program:
    """Return a derivative without the outputs that equal an earlier output or a cotangent.

    Only tensors of the activation's size count, which lie in memory alike: the others cost nothing. At least
    one output remains. The next derivative has no cotangent for an output that is left out: autograd adds it
    to that of the tensor which stands for it.

    Args:
        program: a vector-Jacobian product.
    """
    outputs: dict[str, Output] = {}
    shared: dict[str, Shared] = {}
    written: dict[Value, str] = {}
    for name, output in program.outputs.items():
        if not _is_whole(output.like):
            outputs[name] = output
            continue
        value = output.value
        source = value.name if _is_cotangent_of(value, output.like) else written.get(value)
        if source and _lies_as(program, source, output.like):
            shared[name] = Shared(output.like, source)
            continue
        written.setdefault(value, name)
        outputs[name] = output
    if not outputs:
        first = next(iter(shared))
        del shared[first]
        outputs[first] = program.outputs[first]
    notes = (f"{n} is {s.source}: no kernel writes it" for n, s in shared.items())
    return replace(program, outputs=outputs, shared=shared, notes=(*program.notes, *notes))


def _is_whole(like: Input) -> bool:
    """Return whether a tensor has a number for each element of the activation, and no parts."""
    return like.access.kind == Kind.FULL and like.access.count == 1


def _is_cotangent_of(value: Value, like: Input) -> bool:
    """Return whether a gradient is a tensor that the derivative takes. It is linear in cotangents alone."""
    return isinstance(value, Input) and value.source == "tensor" and value is not like


def _lies_as(program: Program, source: str, like: Input) -> bool:
    """Return whether the tensor of an output or an input lies in memory as a tensor does."""
    own = {i.name: i for i in program.inputs} | {n: o.like for n, o in program.outputs.items()}
    return replace(own[source].access, tensor=like.tensor) == like.access
