"""The tensors of a case: random numbers, in the memory format that was drawn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.tools.bench.spared import spared_bytes
from fusegen.tools.bench.subjects import Set
from fusegen.tools.bench.sweep.cases import Case
from fusegen.tools.check.random_operands import random_operands

_CHANNEL = 1


def make_set(case: Case, chain: Chain, generator: torch.Generator) -> Set:
    """Return the tensors of one call, on the generator's device."""
    dtype: torch.dtype = getattr(torch, case.dtype)
    x = _activation(case, dtype, generator)
    operands = random_operands(chain, x, generator, case.ones)
    operands = {name: reordered(tensor, case) for name, tensor in operands.items()}
    trained = {o.name for o in chain.operands if o.differentiable}
    moving = (x, *(t for name, t in operands.items() if name in trained))
    for tensor in moving:
        tensor.requires_grad_()
    (result,) = chain.output_shapes(x.shape).values()
    cotangent = reordered(_randn(result, dtype, generator), case)
    dense = torch.empty(x.shape, dtype=dtype, device=x.device)
    return Set((x, *operands.values()), moving, cotangent, dense)


def reordered(tensor: Tensor, case: Case) -> Tensor:
    """Return a dense tensor with x's order of dims in memory, if it has as many dims."""
    if tensor.dim() != len(case.shape):
        return tensor
    if case.format.name == "channels_last":
        return tensor.movedim(_CHANNEL, -1).contiguous().movedim(-1, _CHANNEL)
    if case.format.name == "transposed":
        return tensor.transpose(-3, -2).contiguous().transpose(-3, -2)
    return tensor


def _activation(case: Case, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Return x; a chunk and an offset are views of a tensor that is wider."""
    along = _CHANNEL if case.spec.rank else len(case.shape) - 1
    size = case.shape[along]
    wide, start = size, 0
    if case.format.name == "chunk":
        wide, start = size * case.format.parts, size * case.format.place
    elif case.format.name == "offset":
        wide, start = size + 1, 1
    shape = (*case.shape[:along], wide, *case.shape[along + 1 :])
    whole = _randn(shape, dtype, generator)
    return reordered(whole.narrow(along, start, size), case).detach()


def _randn(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=generator.device, generator=generator)


def bytes_that_must_move(chain: Chain, tensors: Set, direction: str) -> int:
    """Return the bytes that a call must move: each tensor once, and more where a result needs a tensor twice.

    A step that needs statistics of the whole batch, and a step that reduces over other dims than those before
    it, begin only when all that precedes them is done. What they take is read again, or, if that is less,
    written and read.
    """
    x, *_ = tensors.given
    read = sum(t.nbytes for t in tensors.given)
    moved = read + tensors.cotangent.nbytes
    read_again, between = read, 2
    if direction == "backward":
        moved += sum(t.nbytes for t in tensors.moving) - spared_bytes(chain, x.nbytes)
        read_again, between = read + tensors.cotangent.nbytes, 3  # a value, and its gradient twice
    handed = 0
    for number, (segment, shape) in enumerate(
        zip(chain.segments, chain.reached(x.shape), strict=True)
    ):
        if number:
            moved += min(read_again, between * handed)
        if any(step.op is not None and step.op.trained for step in segment.steps):
            moved += read_again
        handed = math.prod(segment.shape_after(shape)) * x.element_size()
    return moved
