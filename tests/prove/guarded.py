"""Tensors that end where no memory follows, or begin where none is. A wrong access ends the process."""

from __future__ import annotations

import ctypes
import functools
import mmap
import random
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_NONE, _READ_AND_WRITE, _PRIVATE, _ANONYMOUS = 0, 3, 2, 0x20
PAGE = mmap.PAGESIZE
#: How the elements of a tensor may lie.
LAYOUTS = ("contiguous", "gaps", "channels_last", "reversed")


def guarded(tensor: Tensor, rng: random.Random) -> Tensor:
    """Return an equal tensor between two pages that nobody may touch, with strides drawn at random.

    Its first element is the first byte after one page, or its last element ends where the other begins.
    """
    if tensor.numel() == 0:
        return tensor.clone()
    strides = _strides(list(tensor.shape), rng.choice(LAYOUTS), rng)
    count = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, strides, strict=True))
    size = count * tensor.element_size()
    inside = -(-size // PAGE) * PAGE
    whole = inside + 2 * PAGE
    base = _LIBC.mmap(None, whole, _READ_AND_WRITE, _PRIVATE | _ANONYMOUS, -1, 0)
    if base in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "mmap")
    for page in (base, base + PAGE + inside):
        if _LIBC.mprotect(page, PAGE, _NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    begin = base + PAGE + (inside - size if rng.random() < 0.5 else 0)
    memory = (ctypes.c_char * size).from_address(begin)
    ctypes.memset(begin, 0xFF, size)  # NaN in the gaps
    flat = torch.frombuffer(memory, dtype=tensor.dtype)
    # torch keeps `memory` as long as a tensor has it.
    weakref.finalize(memory, _LIBC.munmap, base, whole).atexit = False
    found = flat.as_strided(tensor.shape, strides)
    found.copy_(tensor)
    return found


def _strides(shape: list[int], layout: str, rng: random.Random) -> list[int]:
    """Return strides for a shape: its dims in an order, with a gap after one of them or none."""
    dims = list(range(len(shape)))
    if layout == "channels_last" and len(shape) > 2:
        dims = [0, *dims[2:], 1]
    elif layout == "reversed":
        dims.reverse()
    gap = rng.choice(dims) if layout == "gaps" and dims else None
    strides, step = [0] * len(shape), 1
    for dim in reversed(dims):
        strides[dim] = step
        step *= shape[dim]
        if dim == gap:
            step += rng.randrange(1, 9)
    return strides


class _Moved(torch.autograd.Function):
    """A tensor in guarded memory; so is its gradient, and each further derivative."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rng: random.Random) -> Tensor:
        ctx.rng = rng
        return guarded(tensor, rng)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Moved.apply(grad, ctx.rng), None


def guard(package: ModuleType, rng: random.Random) -> Any:
    """Return a package whose `apply` gets guarded tensors, as its derivatives get guarded cotangents."""
    apply: Callable[..., Any] = package.apply

    def move(value: Any) -> Any:
        return _Moved.apply(value, rng) if isinstance(value, Tensor) else value

    @functools.wraps(apply)
    def guarded_apply(*given: Any, **named: Any) -> Any:
        result = apply(*map(move, given), **{name: move(value) for name, value in named.items()})
        # The values stay where they are; what comes back to them is moved.
        return tuple(map(move, result)) if isinstance(result, tuple) else move(result)

    return SimpleNamespace(**{**vars(package), "apply": guarded_apply})
