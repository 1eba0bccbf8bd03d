"""Operands in other shapes and dtypes than the operators take, if torch gives them the same meaning.

An operand is broadcast against the activation as torch does it: trailing dims are aligned, and sizes of 1 and
missing dims are expanded. `expand` and `to` are differentiable, so a gradient comes back in the operand's own
shape and dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from fusegen.runtime.along_dims import along_dims
from fusegen.runtime.dropped_dims import with_dropped
from fusegen.runtime.operators import computed_in, half_shape

#: The dtypes of an activation.
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Operand:
    """An operand of the chain.

    It is no dataclass: a single file (alone.py) may be run by a loader that registers no module, which those
    need.

    Args:
        name: its name in `apply`.
        kind: "full" (x's shape), "col" ([cols]), "row" (x's shape with ones for the row's dims) or
            "scalar" (one element); "channel": one number per channel, [C, 1, 1] or [C]. Or the dims of x
            along which it varies, counted from the end.
        integer: whether it has int64 numbers: one per row, in x's shape without the row's dims.
        parts: how many parts of a row it holds, if x has several; 0 if it is not cut into parts.
        mask: whether it is of bool. The operators take it in x's dtype, as 0 and 1.
        float32: whether it is of float32 where x has 16 bits, as the kernels compute.
        per_channel: whether it is given with one number per channel, [C, 1, 1] or [C], and expanded to its
            kind.
        dims: the dims along which it varies, counted from the end, if the spec lists them: a call may pass
            it with these alone.
        beside_dropped: whether torch aligns it with a value that lacks the columns' dims: steps that reduce
            have dropped them before it is used.

    Attributes:
        typed: whether its dtype may be another than x's.
    """

    def __init__(
        self,
        name: str,
        kind: Literal["full", "col", "row", "channel", "scalar"] | tuple[int, ...],
        integer: bool = False,
        parts: int = 0,
        mask: bool = False,
        float32: bool = False,
        per_channel: bool = False,
        dims: tuple[int, ...] = (),
        beside_dropped: bool = False,
    ) -> None:
        self.name, self.kind, self.per_channel, self.dims = name, kind, per_channel, dims
        self.beside_dropped = beside_dropped
        self.integer, self.parts, self.mask, self.float32 = integer, parts, mask, float32
        self.typed = integer or float32  # each call asks for it: a property would take 50 ns

    def dtype(self, x: torch.dtype) -> torch.dtype:
        """Return the dtype in which the operators take it, for an activation of a dtype."""
        if self.integer:
            return torch.int64
        return computed_in(x) if self.float32 else x

    @property
    def kind_in_passes(self) -> str | tuple[int, ...]:
        """Its kind for the operators, which decides how it is batched and sharded."""
        return "dropped" if self.integer else self.kind


def broadcast_shape(
    kind: str | tuple[int, ...], x: Sequence[int], columns: tuple[int, int]
) -> tuple[int, ...]:
    """Return the shape of an operand that broadcasts with an activation; leading ones may be missing.

    Args:
        kind: the operand's kind.
        x: the activation's shape.
        columns: the first and the last dim along which a row runs, counted from the end.
    """
    if kind == "full" or not x:
        return tuple(x)
    if isinstance(kind, tuple):
        return tuple([size if dim - len(x) in kind else 1 for dim, size in enumerate(x)])
    first, last = columns[0] % len(x), columns[1] % len(x)
    if kind == "channel":
        first = last = 1  # as torch has it
    kept = [(first <= dim <= last) != (kind == "row") for dim in range(len(x))]
    return tuple([size if keep else 1 for size, keep in zip(x, kept, strict=True)])


def without_columns(x: Sequence[int], columns: tuple[int, int]) -> tuple[int, ...]:
    """Return an activation's shape without the dims of a row."""
    return (*x[: columns[0]], *x[len(x) + columns[1] + 1 :]) if x else ()


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the ones before its last dim."""
    front = next((n for n, size in enumerate(shape[:-1]) if size != 1), max(len(shape) - 1, 0))
    return shape[front:]


def has_shape(operand: Operand, tensor: Tensor, x: Sequence[int], columns: tuple[int, int]) -> bool:
    """Return whether the operators take an operand of this shape as it is."""
    kind = operand.kind
    if kind == "full":
        # The lengths first: a compiler would guard that dims of other places differ.
        return tensor.dim() == len(x) and tensor.shape == x
    if operand.integer:
        return tensor.shape == without_columns(x, columns)
    if kind == "scalar":
        return tensor.numel() == 1
    if tensor.dim() == 1 and x and kind == "channel":  # as torch's own modules hold it
        return tensor.shape[0] == x[1]
    if tensor.dim() == 1 and x and kind == "col" and columns == (-1, -1):
        return tensor.shape[0] == x[-1]  # the most common case, by the fastest way
    shape = broadcast_shape(kind, x, columns)
    own = tuple(tensor.shape)
    if kind == "row" or operand.beside_dropped:
        return len(own) == len(shape) and own == shape
    own, shape = without_ones(own), without_ones(shape)
    return len(own) == len(shape) > 0 and own == shape


def masks_as_numbers(
    package: str, x: Any, operands: Sequence[Operand], given: Sequence[Any]
) -> tuple[Any, ...]:
    """Return the operands, with masks as 0 and 1 in x's dtype.

    Args:
        package: the package's name.
        x: the activation.
        operands: the declarations of the operands.
        given: the operands.

    Raises:
        TypeError: if a mask has another dtype than bool.
    """
    found = list(given)
    for place, (operand, tensor) in enumerate(zip(operands, given, strict=True)):
        if not operand.mask or not isinstance(tensor, Tensor) or not isinstance(x, Tensor):
            continue
        if tensor.dtype is not torch.bool:
            own = str(tensor.dtype).removeprefix("torch.")
            raise TypeError(f"{package}: {operand.name}: expected bool, got {own}")
        found[place] = tensor.to(x.dtype)
    return tuple(found)


def adapted(
    x: Any,
    operands: Sequence[Operand],
    given: Sequence[Any],
    columns: tuple[int, int],
    halved: int,
    parts: int = 2,
) -> tuple[Any, ...]:
    """Return the operands of a call as the operators take them; those that torch would refuse stay as they
    are.

    Args:
        x: the activation.
        operands: the declarations of the operands.
        given: the operands.
        columns: the first and the last dim along which a row runs, counted from the end.
        halved: the dim along which x has two halves or more parts, counted from the end; 0 if it has none.
        parts: how many parts there are.
    """
    if not isinstance(x, Tensor) or x.is_nested:
        return tuple(given)
    autocast = x.device.type in {"cpu", "cuda"} and torch.is_autocast_enabled(x.device.type)
    whole = x.shape
    half = half_shape(whole, halved, parts) if halved and len(whole) >= -halved else whole
    found: list[Any] = []
    for operand, tensor in zip(operands, given, strict=True):
        if not isinstance(tensor, Tensor) or tensor.is_nested:
            found.append(tensor)
        elif operand.integer:
            found.append(tensor.long() if tensor.dtype is torch.int32 else tensor)
        else:
            wanted = operand.dtype(x.dtype)
            converts = _converts(tensor, wanted, x, autocast=autocast)
            own = tensor.to(wanted) if converts else tensor
            if operand.per_channel:
                own = _by_channel(own, len(whole))
            shape = half_shape(whole, halved, parts, operand.parts) if operand.parts else half
            if operand.beside_dropped:
                own = with_dropped(own, shape, range(columns[0], columns[1] + 1), operand.dims)
            placed = along_dims(own, operand.dims, shape) if operand.dims else own
            if not has_shape(operand, placed, shape, columns):
                larger = _expanded(placed, operand.kind, shape, columns)
                placed = own if larger is placed else larger  # a message then says what was given
            found.append(placed)
    return tuple(found)


def _by_channel(tensor: Tensor, dims: int) -> Tensor:
    """Return numbers of channels, [C] as torch's modules hold them, as they broadcast with an activation."""
    return tensor.reshape(-1, *[1] * (dims - 2)) if tensor.dim() == 1 else tensor


def _converts(tensor: Tensor, wanted: torch.dtype, x: Tensor, *, autocast: bool) -> bool:
    """Return whether an operand is converted to the dtype in which the operators take it: if that is the
    dtype of torch's result for the two, or under autocast."""
    own = tensor.dtype
    if own is wanted or not own.is_floating_point:
        return False
    if autocast:
        return True
    if own not in DTYPES or wanted not in DTYPES:
        return False
    # A tensor without dims does not decide the dtype of torch's result either.
    return torch.promote_types(own, wanted) is wanted or (not tensor.dim() and x.dim() > 0)


def asks_for_float32(x: Any, operands: Sequence[Operand], given: Sequence[Any]) -> bool:
    """Return whether torch's result for an activation of 16 bits is of float32, because an operand is.

    Rounding the operand would compute less exactly than torch does, so that x is widened instead.

    Args:
        x: the activation.
        operands: the declarations of the operands.
        given: the operands, as `adapted` returned them.
    """
    if not isinstance(x, Tensor) or x.dtype not in (torch.bfloat16, torch.float16):
        return False
    return any(
        isinstance(tensor, Tensor)
        and tensor.dtype is torch.float32
        and operand.dtype(x.dtype) is x.dtype
        for operand, tensor in zip(operands, given, strict=True)
    )


def _expanded(
    tensor: Tensor, kind: str | tuple[int, ...], x: Sequence[int], columns: tuple[int, int]
) -> Tensor:
    """Return an operand in the shape of its kind, or as it is if torch would not broadcast it to that.

    One of rows may also lack the row's dims, as a loss of each row does.
    """
    own, wanted = tensor.shape, broadcast_shape(kind, x, columns)
    missing = len(wanted) - len(own)
    if kind == "scalar" or missing < 0:
        return tensor
    if any(size not in (1, to) for size, to in zip(own, wanted[missing:], strict=True)):
        dropped = kind == "row" and tuple(own) == without_columns(x, columns)
        return tensor.reshape(wanted) if dropped else tensor
    return tensor.expand(wanted)
