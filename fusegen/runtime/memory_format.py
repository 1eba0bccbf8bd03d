"""In which memory format a generated `Module` runs its convolution.

On a GPU, tensor cores multiply channels-last tensors. cuDNN transposes what comes in another format before a
convolution, and its result back. In channels-last only the input is converted, once, and the kernels that
follow read the convolution's result as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fusegen.runtime.observers import is_transformed

__all__ = [
    "FORMATS",
    "MemoryFormat",
    "Reading",
    "converted",
    "converters",
    "in_memory_format",
    "is_faster",
    "set_memory_format",
]

#: "auto": channels-last where that pays; "channels_last": always; "preserve": as the input comes.
MemoryFormat = Literal["auto", "channels_last", "preserve"]
#: What becomes of a convolution's result if it is channels-last: the kernels read it "as it is", or it is
#: "copied".
Reading = Literal["as it is", "copied"]

#: Channels-last, by the number of a tensor's dims.
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
#: What converts a tensor faster than torch does, by the bytes of an element, where a loaded package has it.
converters: dict[int, Callable[[Tensor, torch.memory_format], Tensor]] = {}
#: What Modules do whose attribute is "auto".
_default: list[MemoryFormat] = ["auto"]
_is_compiling = torch.compiler.is_compiling


class set_memory_format:  # noqa: N801 # a function that may also stand in `with`, as torch's do
    """Set in which memory format generated `Module`s run their convolutions; in `with`, for its duration.

    A `Module` whose attribute `memory_format` is not "auto" keeps to that. The setting is one of the process.

    Args:
        memory_format: "auto" (the default: channels-last on a GPU where that pays), "channels_last" (always,
            on a CPU too), or "preserve" (as the input comes).

    Raises:
        ValueError: if it is something else.
    """

    def __init__(self, memory_format: MemoryFormat) -> None:
        self._before = _default[0]
        _default[0] = _checked(memory_format)

    def __enter__(self) -> None:
        """Keep the setting until the end of the block."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Restore the setting before."""
        _default[0] = self._before


def in_memory_format(
    x: Tensor,
    weight: Tensor,
    groups: int,
    chosen: MemoryFormat,
    reading: Reading,
    beside: tuple[Tensor, ...] = (),
) -> Tensor:
    """Return the input of a convolution in the memory format in which the convolution should run.

    Args:
        x: the input.
        weight: the convolution's weight.
        groups: into how many groups its channels are split.
        chosen: the `memory_format` of the `Module`.
        reading: what becomes of the result if it is channels-last.
        beside: what the kernels read beside the result, element by element.

    Raises:
        ValueError: if `chosen` is no memory format.
    """
    wanted = _default[0] if chosen == "auto" else _checked(chosen)
    if wanted == "preserve" or x.dim() not in FORMATS:
        return x
    if is_transformed() and not _is_compiling():
        return x  # torch.vmap knows no memory formats
    pays = reading != "copied" and is_faster(x, weight, groups) and _saves(x, beside)
    if wanted == "auto" and not pays:
        return x
    return converted(x, FORMATS[x.dim()])


def converted(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Return images or volumes in another memory format, as `contiguous` does.

    Args:
        x: the images, of four or five dims.
        memory_format: channels-last for that many dims, or `torch.contiguous_format`.
    """
    convert = None if _is_compiling() else converters.get(x.itemsize)
    if convert is None or x.is_contiguous(memory_format=memory_format):
        return x.contiguous(memory_format=memory_format)
    return convert(x, memory_format)


def is_faster(x: Tensor, weight: Tensor, groups: int) -> bool:
    """Return whether a convolution of images or volumes, transposed or not, is faster in channels-last.

    Inductor measured which are not (`decide_layout_opt` in torch/_inductor/graph.py): those in several groups
    of more than one channel, and in training those with half as many outputs as inputs. The latter holds for
    float32 alone: in 16 bits cuDNN transposes images for all its kernels (docs/notes/2026-12-02_movement.md).
    """
    if not x.is_cuda or x.dtype is torch.float64 or x.dim() not in FORMATS:
        return False
    if x.dtype is torch.float32 and not _may_use_tf32():
        return False
    outputs, inputs, *kernel = weight.shape
    if groups != 1 and inputs > 1:
        return False
    fewer = groups == 1 and outputs * 2 <= inputs and kernel[0] > 1 and x.itemsize > 2
    return not (fewer and torch.is_grad_enabled())


def _constant(function: Callable[[], bool]) -> Callable[[], bool]:
    """Let torch.compile call a function that it cannot trace, once.

    This is what `torch.compiler.assume_constant_result` does; calling that would import the compiler.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_constant
def _may_use_tf32() -> bool:
    """Return whether convolutions of float32 may use TF32."""
    # `allow_tf32` raises an error if convolutions and recurrent networks differ.
    cudnn: Any = torch.backends.cudnn
    return bool(cudnn.conv.fp32_precision == "tf32")


def _saves(x: Tensor, beside: tuple[Tensor, ...]) -> bool:
    """Return whether something is saved: a conversion of the convolution's result, in each pass.

    Any other tensor of that size that is not channels-last must be converted, which costs as much.
    """
    if not _is_compiling() and type(x) is not Tensor:
        return False
    if x.shape[1] == 1:
        return False  # then both formats are the same, and torch takes it for contiguous
    return all(
        t.dim() != x.dim() or t.is_contiguous(memory_format=FORMATS[x.dim()]) for t in beside
    )


def _checked(memory_format: MemoryFormat) -> MemoryFormat:
    if memory_format not in get_args(MemoryFormat):
        names = " or ".join(map(repr, get_args(MemoryFormat)))
        raise ValueError(f"memory_format: expected {names}, got {memory_format!r}")
    return memory_format
