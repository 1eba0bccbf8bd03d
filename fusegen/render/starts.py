"""What a chain starts from, where that is an operand which may have only the dims that it lists."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from fusegen.render.module_forward import parameters_of
from fusegen.spec.cut import CUT, START
from fusegen.spec.model import INPUT, Spec, Step

__all__ = ["with_dims_of_x"]


def with_dims_of_x(spec: Spec, step: Step, name: str) -> str:
    """Return the text of what a chain starts from, with as many dims as x if it is an operand that lists its
    own, or of which the first step is a formula."""
    text = parameters_of(spec).get(name, name)
    operand = next((o for o in spec.operands if o.name == name and not o.factor), None)
    if operand is None or (operand.dims is None and step.op is not START):
        return text
    rank = spec.dims if operand.dims is not None else step.dims
    if not rank:
        return text
    dims = operand.dims or tuple(range(-rank, 0))
    # Sizes decide between the dims that it lists and the last ones.
    changed = range(-rank, 0) if operand.dims is None else _changed_sizes(spec, step, rank)
    sizes = [-1 if dim in changed else f"{INPUT}.shape[{dim}]" for dim in range(-rank, 0)]
    shape = f"({', '.join(map(str, sizes))},)" if changed else f"{INPUT}.shape"
    return f"along_dims({text}, {dims}, {shape})"


def _changed_sizes(spec: Spec, step: Step, rank: int) -> Collection[int]:
    """Return the dims, counted from the end, in which what a chain starts from may have another size than x:
    those of which parts were taken, all after a product, and what its own product takes."""
    changed = set[int]()
    if step.op is not None and step.op is not START:
        changed.update(range(-rank, 0) if step.op.rank else (-1,))
    for before in itertools.takewhile(lambda other: other.label != step.label, spec.steps):
        if before.op is CUT:
            dim = before.attributes["dim"]
            assert isinstance(dim, int)
            changed.add(dim % rank - rank)
        elif before.split:
            changed.add(before.halved)
        elif before.is_source and before.op is not START:
            return range(-rank, 0)
    return changed
