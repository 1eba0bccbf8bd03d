"""Checks a call before it reaches the operators, and says what is wrong with it.

The check comes first because in torch 2.11 an exception in a stable-ABI operator ends the process. It is a
few comparisons; only a call that fails it pays for the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from fusegen.runtime.activation import Activation
from fusegen.runtime.operand_shapes import (
    DTYPES,
    Operand,
    broadcast_shape,
    has_shape,
    without_columns,
    without_ones,
)
from fusegen.runtime.operators import half_shape


def fits(
    x: Any,
    operands: Sequence[Operand],
    given: Sequence[Any],
    activation: Activation,
) -> bool:
    """Return whether the operators take a call; see `explain` for the arguments."""
    rank, columns = activation.rank, activation.columns
    halved, parts = activation.halved, activation.parts
    if not isinstance(x, Tensor) or x.is_nested or (rank and x.dim() != rank):
        return False
    dtype, on_cpu = x.dtype, x.is_cpu  # comparing devices takes longer
    if dtype not in DTYPES or not (on_cpu or x.is_cuda or x.is_meta):
        return False
    whole = x.shape
    half: Sequence[int] = whole
    if halved:
        if len(whole) < -halved or whole[halved] % parts:
            return False
        half = half_shape(whole, halved, parts)
    for operand, tensor in zip(operands, given, strict=True):
        if not isinstance(tensor, Tensor):
            return False
        if not (tensor.is_cpu if on_cpu else tensor.device == x.device):
            return False
        if tensor.dtype is not (operand.dtype(dtype) if operand.typed else dtype):
            return False
        held = operand.parts
        shape = half if not held else whole
        if held and held != parts:
            shape = half_shape(whole, halved, parts, held)
        if not has_shape(operand, tensor, shape, columns):
            return False
    return True


def explain(
    package: str,
    x: Any,
    operands: Sequence[Operand],
    given: Sequence[Any],
    activation: Activation,
) -> NoReturn:
    """Raise an error that names the wrong argument.

    Args:
        package: the package's name.
        x: the activation of the call.
        operands: the chain's declarations of the operands.
        given: the operands of the call.
        activation: what the chain says of it.

    Raises:
        TypeError: an argument is not a tensor, or has the wrong dtype.
        ValueError: an argument is on the wrong device or has the wrong shape.
    """
    name, rank = activation.name, activation.rank
    columns, halved, parts = activation.columns, activation.halved, activation.parts
    if not isinstance(x, Tensor):
        raise TypeError(f"{package}: {name}: expected a tensor, got {type(x).__name__}")
    if x.is_nested:
        raise TypeError(f"{package}: {name}: expected a dense tensor, got a nested one")
    if x.dtype not in DTYPES:
        names = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
        raise TypeError(f"{package}: {name}: expected one of {names}, got {_dtype(x)}")
    if rank and x.dim() != rank:
        wider = rank == 2 and x.dim() > 2
        remedy = f"; for more, say `dims: {x.dim()}` in the spec" if wider else ""
        raise ValueError(
            f"{package}: {name}: expected {rank} dims, got shape {tuple(x.shape)}{remedy}"
        )
    whole = x.shape
    half: Sequence[int] = whole
    if halved:
        if len(whole) < -halved or whole[halved] % parts:
            cut = "two halves" if parts == 2 else f"{parts} parts of one width"
            message = f"expected {cut} along dim {halved}, got shape {tuple(whole)}"
            if len(whole) >= -halved:
                size = "an even size" if parts == 2 else f"a multiple of {parts}"
                message += f"; {size} is needed there: pass a slice, or pad it"
            raise ValueError(f"{package}: {name}: {message}")
        half = half_shape(whole, halved, parts)
    for operand, tensor in zip(operands, given, strict=True):
        place = f"{package}: {operand.name}"
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{place}: expected a tensor, got {type(tensor).__name__}")
        if operand.integer and tensor.dtype != torch.int64:
            raise TypeError(f"{place}: expected int64, got {_dtype(tensor)}")
        wanted = operand.dtype(x.dtype)
        if not operand.integer and tensor.dtype != wanted:
            to = "x.dtype" if wanted is x.dtype else wanted
            remedy = f"; call .to({to}), or use torch.autocast" if tensor.dtype in DTYPES else ""
            if tensor.dtype is torch.float32 and wanted in (torch.bfloat16, torch.float16):
                remedy = (
                    "; build the package with float32 too, or declare the operand with `dtype: float32`, "
                    "or call .to(x.dtype)"
                )
            if tensor.dtype is torch.bool:
                remedy = "; a mask is declared with `dtype: bool`"
            reason = f"as {name} has" if wanted is x.dtype else f"for {name} of {_dtype(x)}"
            expected = str(wanted).removeprefix("torch.")
            raise TypeError(f"{place}: expected {expected} {reason}, got {_dtype(tensor)}{remedy}")
        if tensor.device != x.device:
            raise ValueError(
                f"{place}: expected a tensor on {x.device} as {name} is, got one on {tensor.device}"
            )
        shape = half_shape(whole, halved, parts, operand.parts) if operand.parts else half
        if not has_shape(operand, tensor, shape, columns):
            raise ValueError(
                f"{place}: expected {_expected(operand, shape, columns)} for {name} of shape "
                f"{tuple(whole)}, got {tuple(tensor.shape)}{_rule(operand, tensor, shape, activation)}"
            )
    raise ValueError(f"{package}: {name}: expected a tensor on cpu or cuda, got one on {x.device}")


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _expected(operand: Operand, x: Sequence[int], columns: tuple[int, int]) -> str:
    kind = operand.kind
    if operand.integer:
        return f"shape {without_columns(x, columns)}"
    if kind == "scalar":
        return "one element"
    if operand.per_channel:
        return f"shape ({x[1]},), a number for each channel,"
    shape = broadcast_shape(kind, x, columns)
    return f"shape {shape if kind in ('full', 'row') else without_ones(shape)}"


def _rule(operand: Operand, tensor: Tensor, x: Sequence[int], activation: Activation) -> str:
    """Return which other shapes an operand may have, for a message."""
    apart = (
        "; steps after one that reduces, or whose value is returned or named, make nothing larger: put them "
        "into a spec of their own"
    )
    full = operand.kind == "full" and not operand.integer
    if tensor.dim() > len(x):
        remedy = apart if full and not activation.rank else ""
        return (
            f"; in torch the result would have {tensor.dim()} dims, and a chain adds none{remedy}"
        )
    if operand.integer or operand.kind == "scalar" or operand.per_channel:
        return ""
    if full and (activation.broadcasters or _makes_larger(tensor.shape, x)):
        return apart
    along = isinstance(operand.kind, tuple)
    what = f"an operand of dims {operand.kind}" if along else f"a {operand.kind} operand"
    return f"; {what} may have any shape that torch broadcasts to the expected one"


def _makes_larger(shape: Sequence[int], x: Sequence[int]) -> bool:
    """Return whether torch's result for two shapes is larger than the second."""
    pairs = [*zip(reversed(shape), reversed(x), strict=False)]
    return all(own == to or 1 in (own, to) for own, to in pairs) and any(
        own > to for own, to in pairs
    )
