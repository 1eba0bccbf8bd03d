"""Runs a model of float64 in float64 throughout, also where its code casts to another dtype."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["ExactCasts"]

_NARROW = (torch.float32, torch.bfloat16, torch.float16)


class ExactCasts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Makes each cast to a narrower floating-point dtype, and each new tensor of one, float64.

    Norms that compute in float32, as those of Llama, would round the truth otherwise.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator; of its arguments only `dtype` may change."""
        del types
        given = dict(kwargs or {})
        if given.get("dtype") in _NARROW:
            given["dtype"] = torch.float64
        return func(*args, **given)
