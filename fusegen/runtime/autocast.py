"""Values that torch.autocast makes float32: kernels compute them from an x of float32, as torch does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Widening(NamedTuple):
    """What autocast makes float32. Every chain has one: torch.compile may look at that of a package which had
    the same name before.

    Args:
        cpu: on the CPU, whether it makes each value float32; () if it makes none so.
        cuda: the same on CUDA.
        promoting: of each value, the places of the operands that make it float32 if they are; () if no value
            has any.
    """

    cpu: tuple[bool, ...]
    cuda: tuple[bool, ...]
    promoting: tuple[tuple[int, ...], ...]


def widening(
    autocast: Mapping[str, tuple[bool, ...]], promoting: tuple[tuple[int, ...], ...]
) -> Widening:
    """Return what a package says by the names of devices, and of operands."""
    return Widening(autocast.get("cpu", ()), autocast.get("cuda", ()), promoting)


def widened_values(x: Any, operands: Sequence[Any], said: Widening) -> tuple[bool, ...]:
    """Return whether each of a chain's values is of float32 under the present autocast; () if none is.

    Args:
        x: the activation.
        operands: the operands.
        said: what autocast makes float32.
    """
    if not isinstance(x, Tensor) or x.dtype not in (torch.bfloat16, torch.float16):
        return ()
    found = said.cuda if x.is_cuda else said.cpu
    if not (any(found) or said.promoting) or not torch.is_autocast_enabled(x.device.type):
        return ()
    if said.promoting:
        wide = [_promotes(operand) for operand in operands]
        by_operands = [True in [wide[place] for place in places] for places in said.promoting]
        found = tuple([a or b for a, b in zip(found or by_operands, by_operands, strict=True)])
    return found if any(found) else ()


def _promotes(operand: Any) -> bool:
    """Whether an operand is of float32, and no tensor without dims, which decides no dtype in torch."""
    return isinstance(operand, Tensor) and operand.dtype is torch.float32 and operand.dim() > 0


def in_dtypes(
    values: Sequence[Tensor], dtype: torch.dtype, wide: Sequence[bool]
) -> tuple[Tensor, ...]:
    """Return values that were computed in float32: some as they are, the others in a dtype of 16 bits."""
    return tuple([v if own else v.to(dtype) for v, own in zip(values, wide, strict=True)])
