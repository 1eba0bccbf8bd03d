"""The inputs of a dtype, and how far results may be from the truth there."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fusegen.tools.check.every_number import FLUSHED, beyond, every

__all__ = ["FLUSHED", "NORMAL_TAIL", "TARGETS", "beyond", "every", "interleaved", "stratified"]

#: Where a 16-bit result is good to an absolute error alone: the normal distribution's tail below -5, which is
#: 2.9e-7 there (elementary.py). A longer polynomial would cost every gelu a seventh of its instructions.
NORMAL_TAIL = {"only_gelu_0": 1e-8, "formula_normcdf": 1e-8}
#: How far a result may be from the truth, in ulp.
TARGETS = {torch.bfloat16: 1.0, torch.float16: 1.0, torch.float32: 4.0}


def stratified(count: int, seed: int) -> Tensor:
    """Return float32 numbers, sorted by their bits: one from each of `count` strata of equal size.

    Half of the strata divide all bit patterns, the others those of numbers from 2^-14 to 2^7 of both signs,
    where functions curve.
    """
    generator = torch.Generator().manual_seed(seed)
    first, last = (127 - 14) << 23, (127 + 7) << 23
    parts = [_strata(0, 2**32, count // 2, generator)]
    for sign in (0, 2**31):
        parts.append(_strata(sign + first, sign + last, count // 4, generator))
    return _floats(torch.cat(parts))


def interleaved(
    count: int, chunk: int, device: str, seed: int = 0, bits: int = 32
) -> Iterator[Tensor]:
    """Yield float32 numbers, NaNs and infinities too, each at most once: of 2^32, all.

    Each chunk goes through all bit patterns with the same stride, from a start of its own. So the first
    chunks have numbers of every size.

    Args:
        count: how many numbers, a multiple of chunk.
        chunk: how many are given at once, a power of two.
        device: where they are made.
        seed: the seed of the order of the starts.
        bits: how many of a number's bits are gone through, the last ones.
    """
    stride = 2**bits // chunk
    starts = torch.randperm(stride, generator=torch.Generator().manual_seed(seed))
    steps = torch.arange(chunk, dtype=torch.int64, device=device) * stride
    for start in starts[: count // chunk].tolist():
        yield _floats(steps + start)


def _floats(bits: Tensor) -> Tensor:
    """Return the float32 numbers of bit patterns from 0 to 2^32 - 1."""
    return torch.where(bits < 2**31, bits, bits - 2**32).to(torch.int32).view(torch.float32)


def _strata(first: int, last: int, count: int, generator: torch.Generator) -> Tensor:
    edges = first + torch.arange(count + 1, dtype=torch.int64) * (last - first) // count
    inside = torch.rand(count, dtype=torch.float64, generator=generator) * edges.diff()
    return edges[:-1] + inside.long()
