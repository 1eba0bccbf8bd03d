"""Tensors that lie in memory in other ways, and whether a call copied any."""

from __future__ import annotations

from torch import Tensor
from torch.profiler import profile

#: What torch calls where it copies a tensor.
COPIES = {"aten::contiguous", "aten::clone", "aten::copy_"}


def channels_last(tensor: Tensor) -> Tensor:
    """Return a tensor whose channels lie after its other dims but the first."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def copied(seen: profile) -> set[str]:
    """Return which of torch's copies a profile has seen."""
    return COPIES & {event.key for event in seen.key_averages()}
