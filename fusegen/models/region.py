"""A region of a captured graph: nodes that are computed together, of one node or of two regions.

A region has one activation shape. Each value in it has that shape, or that shape with size 1 in the dims that
the region reduces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import fx

from fusegen.models import patterns
from fusegen.models.arguments import UnfitError, tensor_of
from fusegen.models.calls import Call
from fusegen.models.shapes import Shape, broadcast, is_reduced, same

__all__ = ["Region", "joined_of", "region_of"]

#: A longer region takes sympy and the compilers long, and a kernel runs out of registers.
MAX_NODES = 48
#: torch passes at most 64 tensors and numbers to an operator.
MAX_TENSORS = 24
#: What sums: kernels read a tensor where it lies if only these run over all dims but the channels.
_SUMS = frozenset({"mean", "sum", "var"})


@dataclass
class Region:
    """Nodes that are computed together.

    Args:
        calls: what each node computes, in the graph's order.
        shape: the shape of the activation.
        rows: the dims that it reduces, counted from the end; or a word for the layout that a norm over
            channels or a batch sets; or None.
        device: the device of all its tensors.
    """

    calls: dict[fx.Node, Call]
    shape: Shape
    rows: tuple[int, ...] | str | None
    device: torch.device
    #: The regions of the graph by their nodes.
    around: dict[fx.Node, Region] = field(default_factory=dict, repr=False, compare=False)

    @property
    def inputs(self) -> list[fx.Node]:
        """The nodes outside that it reads, in order of first use."""
        read = (i for call in self.calls.values() for i in call.inputs)
        return [n for n in dict.fromkeys(read) if n not in self.calls]

    @property
    def outputs(self) -> list[fx.Node]:
        """Its nodes that others read."""
        return [n for n in self.calls if any(user not in self.calls for user in n.users)]


def region_of(node: fx.Node, call: Call) -> Region:
    """Return the region of one node.

    Raises:
        UnfitError: if no chain has rows like its.
    """
    value = tensor_of(node)
    assert value is not None
    tensors = {used: tensor_of(used) for used in call.inputs}
    shapes = [tuple(t.shape) for t in tensors.values() if t is not None]
    rows: tuple[int, ...] | str | None = call.dims or None
    if call.part is not None:
        shape: Shape | None = tuple(value.shape)
    elif call.name in patterns.KEPT or call.of_classes:
        reads = tensor_of(call.x)
        assert reads is not None
        shape = tuple(value.shape if call.halves else reads.shape)
        if call.name == "batch_norm":
            rows = "batch" if call.training else None
        elif call.name == "instance_norm":
            rows = tuple(range(2 - value.dim(), 0))  # a reduction may be over the same
        elif call.op is not None and call.op.submodule and call.op.submodule.operands:
            rows = f"{call.name} {node.name}"
    elif call.name in (
        "prelu",
        "rope",
    ):  # weights of each channel, wherever these are; narrower tables
        reads = tensor_of(call.x)
        shape = tuple(reads.shape) if reads is not None else None
    else:
        shape = broadcast(shapes)
    if shape is None or not shape:
        raise UnfitError("a single number, or shapes that cannot be compared")
    if isinstance(rows, tuple):
        _check_rows(call.name, rows, shape)
    elif call.ends:
        if not all(same(other, shape) for other in shapes):
            raise UnfitError("a loss of tensors of several shapes")
    elif call.part is None and not same(tuple(value.shape), shape):
        raise UnfitError("the result has another shape than what it is computed from")
    return Region({node: call}, shape, rows, value.device)


def _are_over_channels(rows: tuple[int, ...], rank: int) -> bool:
    """Return whether rows are all dims but the channels, as those of a statistic of a batch."""
    return rank > 2 and {*rows} == {*range(-rank, 0)} - {1 - rank}


def _check_rows(name: str, rows: tuple[int, ...], shape: Shape) -> None:
    """Refuse rows that a chain cannot have, or of which it would copy the tensor."""
    neighbours = rows == tuple(range(rows[0], rows[0] + len(rows)))
    if not neighbours and not (name in _SUMS and _are_over_channels(rows, len(shape))):
        raise UnfitError("a reduction over dims that are not neighbours")
    if len(shape) == len(rows):
        raise UnfitError("a reduction over all dims")


def joined_of(a: Region, b: Region) -> Region | None:
    """Return two regions as one, or None if no package holds both."""
    if a.device != b.device or len(a.calls) + len(b.calls) > MAX_NODES:
        return None
    if a.rows is not None and b.rows is not None and a.rows != b.rows:
        return None
    rows = a.rows if a.rows is not None else b.rows
    if same(a.shape, b.shape):
        shape = a.shape
    elif _is_row_of(a, b):
        shape = b.shape
    elif _is_row_of(b, a):
        shape = a.shape
    else:
        return None
    dropped = [n for region in (a, b) for n, c in region.calls.items() if not c.keepdim]
    calls = {**a.calls, **b.calls}
    if not _start_alike(calls):
        return None
    if sum(call.ends for call in calls.values()) > 1:
        return None
    if any(user in calls for node in dropped for user in node.users):
        return None
    if any(_draws(call) and not same(_shape_of(n), shape) for n, call in calls.items()):
        return None
    joined = Region(calls, shape, rows, a.device)
    return joined if len(joined.inputs) + len(joined.outputs) <= MAX_TENSORS else None


def _start_alike(calls: Mapping[fx.Node, Call]) -> bool:
    """Return whether all parts that calls start from are of one tensor, which is computed before."""
    parts = [call for call in calls.values() if call.part is not None]
    starts = {(c.inputs, c.part.among, c.part.dim) for c in parts if c.part is not None}
    halved = any(call.halves and call.part is None for call in calls.values())
    if len(starts) + halved > 1:
        return not parts
    return all(calls.keys().isdisjoint(read) for read, _, _ in starts)


def _draws(call: Call) -> bool:
    """Return whether a call draws random numbers, one for each element of a whole activation."""
    return call.op is not None and call.name in ("dropout", "alpha_dropout")


def _shape_of(node: fx.Node) -> Shape:
    value = tensor_of(node)
    return tuple(value.shape) if value is not None else ()


def _is_row_of(small: Region, large: Region) -> bool:
    """Return whether a region has one value for each row of another."""
    rows = large.rows
    return (
        small.rows is None
        and isinstance(rows, tuple)
        and is_reduced(small.shape, large.shape, rows)
    )
