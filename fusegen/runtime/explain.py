"""Checks a call before it reaches the operators, and says what is wrong with it.

The check comes first because an exception that a stable-ABI operator throws ends the process in
torch 2.11; it is a few comparisons, and only a call that fails it pays for the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class _Operand(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def integer(self) -> bool: ...


def fits(x: Any, operands: Sequence[tuple[_Operand, Any]], rank: int) -> bool:
    """Return whether a call is one that the operators take; see `explain` for the arguments."""
    if not isinstance(x, Tensor) or x.dtype not in _DTYPES or (rank and x.dim() != rank):
        return False
    dtype, device = x.dtype, x.device
    if device.type not in {"cpu", "cuda"}:
        return False
    for operand, tensor in operands:
        if not isinstance(tensor, Tensor) or tensor.device != device:
            return False
        if tensor.dtype is not (torch.int64 if operand.integer else dtype):
            return False
        if not _fits(operand, tensor, x):
            return False
    return True


def explain(package: str, x: Any, operands: Sequence[tuple[_Operand, Any]], rank: int) -> NoReturn:
    """Raise an error that names the argument at fault.

    Args:
        package: the package's name.
        x: the activation of the call.
        operands: the operands of the call with what the chain says of them.
        rank: the number of dims that x must have, or 0 for any.

    Raises:
        TypeError: an argument that is no tensor, or of the wrong dtype.
        ValueError: an argument on the wrong device or of the wrong shape.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{package}: x: expected a tensor, got {type(x).__name__}")
    if x.dtype not in _DTYPES:
        names = ", ".join(str(d).removeprefix("torch.") for d in _DTYPES)
        raise TypeError(f"{package}: x: expected one of {names}, got {_dtype(x)}")
    if rank and x.dim() != rank:
        raise ValueError(
            f"{package}: x: expected {rank} dims (the spec says `dim: {rank - 1}`; `dim: -1` takes any "
            f"number), got shape {tuple(x.shape)}"
        )
    for operand, tensor in operands:
        place = f"{package}: {operand.name}"
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{place}: expected a tensor, got {type(tensor).__name__}")
        if operand.integer and tensor.dtype != torch.int64:
            raise TypeError(f"{place}: expected int64, got {_dtype(tensor)}")
        if not operand.integer and tensor.dtype != x.dtype:
            raise TypeError(f"{place}: expected {_dtype(x)} as x has, got {_dtype(tensor)}")
        if tensor.device != x.device:
            raise ValueError(
                f"{place}: expected a tensor on {x.device} as x is, got one on {tensor.device}"
            )
        if not _fits(operand, tensor, x):
            raise ValueError(
                f"{place}: expected {_expected(operand, x)} for x of shape {tuple(x.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
    raise ValueError(f"{package}: x: expected a tensor on cpu or cuda, got one on {x.device}")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _width(x: Tensor) -> int:
    return x.shape[-1] if x.dim() else 1


def _fits(operand: _Operand, tensor: Tensor, x: Tensor) -> bool:
    kind = operand.kind
    if operand.integer:
        return tensor.shape == x.shape[:-1]
    if kind == "full":
        return tensor.shape == x.shape
    if kind == "col":
        return tensor.dim() > 0 and tensor.numel() == tensor.shape[-1] == _width(x)
    if kind == "row":
        return tensor.shape == (*x.shape[:-1], 1)
    return tensor.numel() == 1


def _expected(operand: _Operand, x: Tensor) -> str:
    kind = operand.kind
    if operand.integer:
        return f"shape {tuple(x.shape[:-1])}"
    if kind == "full":
        return f"shape {tuple(x.shape)}"
    if kind == "col":
        return f"shape ({_width(x)},)"
    if kind == "row":
        return f"shape {(*x.shape[:-1], 1)}"
    return "one element"
