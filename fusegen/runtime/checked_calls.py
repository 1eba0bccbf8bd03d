"""Which calls of a chain were checked. A model calls it with the same shapes, step after step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = ["CheckedCalls", "signature"]

#: How many are remembered. Shapes that change with each call would fill the memory.
_MOST = 512

_is_compiling = torch.compiler.is_compiling
_tracing = torch._C._get_tracing_state


class CheckedCalls(set[Any]):
    """The signatures of the calls that the operators take as they are."""

    def note(self, call: tuple[Any, ...]) -> None:
        """Remember a signature that was checked."""
        if len(self) >= _MOST:
            self.clear()
        self.add(call)


def signature(x: Any, given: Sequence[Any], groups: int) -> tuple[Any, ...] | None:
    """Return all that the check of a call looks at: it takes a microsecond, the check itself five or ten.

    A call has none whose shapes are no numbers, as under a compiler or a trace, or that has something else
    than torch's own tensors.

    Args:
        x: the activation.
        given: the operands, as the operators take them.
        groups: how many groups the channels are cut into.
    """
    if _is_compiling() or _tracing() is not None:
        return None
    parts: list[Any] = [groups]
    try:
        for tensor in (x, *given):
            kind = type(tensor)
            if kind is not Tensor and kind is not Parameter:
                return None
            parts += (tensor.shape, tensor.dtype, tensor.device)
    except RuntimeError:  # a nested tensor has no shape
        return None
    return tuple(parts)
