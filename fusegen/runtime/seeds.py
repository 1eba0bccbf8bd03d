"""The seed of a call's random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from fusegen.runtime.sharding import shard_index

_TOP = 2**63 - 1


def seed_tensor(seed: int | Tensor | None, x: Tensor) -> Tensor:
    """Return the seed as one int64 on x's device.

    Without a seed it is drawn from torch's generator of that device. So `torch.manual_seed`, checkpointing
    and the replay of a CUDA graph work as for torch's own dropout. Each shard of a DTensor gets its own seed.

    Raises:
        TypeError: if the seed is neither an int nor an int64 tensor of one element.
    """
    drawn = _drawn(seed, x)
    if type(x) is Tensor:
        return drawn
    # An element's place counts within its shard: shards with one seed would drop the same elements.
    return drawn + shard_index(x) * 0x9E3779B97F4A7C1


def _drawn(seed: int | Tensor | None, x: Tensor) -> Tensor:
    if seed is None:
        return torch.randint(_TOP, (1,), dtype=torch.int64, device=x.device)
    if isinstance(seed, Tensor):
        if seed.numel() != 1 or seed.dtype != torch.int64:
            raise TypeError(
                f"seed: expected one int64, got {seed.dtype} of shape {tuple(seed.shape)}"
            )
        return seed.to(x.device)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed: expected an int or an int64 tensor, got {type(seed).__name__}")
    wrapped = (seed + 2**63) % 2**64 - 2**63
    # Filled on the device: a copy from the host would wait for the GPU, and a CUDA graph refuses it.
    return torch.full((1,), wrapped, dtype=torch.int64, device=x.device)
