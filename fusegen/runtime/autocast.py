"""Values that torch.autocast makes float32: kernels compute them from an x of float32, as torch does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

#: On the CPU and on CUDA, whether autocast makes each value float32; () if it makes none so. Every chain has
#: such a tuple: torch.compile may look at that of a package which had the same name before.
Widening = tuple[tuple[bool, ...], tuple[bool, ...]]


def widening(autocast: Mapping[str, tuple[bool, ...]]) -> Widening:
    """Return what a package says by the names of devices."""
    return autocast.get("cpu", ()), autocast.get("cuda", ())


def widened(x: Any, autocast: Widening) -> tuple[bool, ...]:
    """Return whether each of a chain's values is of float32 under the present autocast; () if none is.

    Args:
        x: the activation.
        autocast: what autocast makes float32.
    """
    if not isinstance(x, Tensor) or x.dtype not in (torch.bfloat16, torch.float16):
        return ()
    found = autocast[x.is_cuda]
    return found if any(found) and torch.is_autocast_enabled(x.device.type) else ()


def in_dtypes(
    values: Sequence[Tensor], dtype: torch.dtype, wide: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Return values that were computed in float32: some as they are, the others in a dtype of 16 bits."""
    return tuple([v if own else v.to(dtype) for v, own in zip(values, wide, strict=True)])
