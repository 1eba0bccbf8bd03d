"""Calls the kernels that read windows, and those that convert images, for sanitize.py to watch or to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from fusegen.runtime import windows
from fusegen.runtime.memory_format import FORMATS, converted

#: A pooling and the shape of its input: windows that overlap, leave gaps, or end in the padding.
POOLINGS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.MaxPool1d(3, 2, 1), (5, 7, 33)),
    (nn.AvgPool1d(2, 3), (3, 8, 65)),
    (nn.MaxPool2d(3, 2, 1), (3, 6, 13, 9)),
    (nn.MaxPool2d((2, 3), (3, 1), dilation=(2, 1), ceil_mode=True), (2, 16, 17, 11)),
    (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 5, 31, 33)),
    (nn.AvgPool2d(2), (2, 32, 16, 16)),
    (nn.MaxPool3d(2), (2, 3, 5, 6, 7)),
    (nn.AvgPool3d((1, 3, 2), 2, (0, 1, 1)), (1, 8, 4, 9, 10)),
]
#: Images large enough for the kernel that transposes.
IMAGES = [(2, 70, 63, 65), (3, 11, 150, 64), (1, 1030, 9, 31, 1)]


def calls() -> Iterator[tuple[str, Callable[[Tensor], list[Tensor]], Tensor]]:
    """Yield what is called, as a function of a tensor, with a tensor on the host.

    Kernels serve these small tensors too, which torch would compute otherwise.
    """
    windows._FEW = 0
    for pooling, shape in POOLINGS:
        for last in (False, True) if len(shape) in FORMATS else (False,):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
            x = x.contiguous(memory_format=FORMATS[len(shape)]) if last else x
            yield f"{pooling} of {shape}{' channels-last' * last}", _pooled(pooling), x
    for shape in IMAGES:
        yield f"conversion of {shape}", _converted, torch.randn(shape)


def _pooled(pooling: nn.Module) -> Callable[[Tensor], list[Tensor]]:
    """Return a function that gives a pooling's value, its gradient, and the derivative of that."""

    def all_of(x: Tensor) -> list[Tensor]:
        own = x.clone().requires_grad_()
        value = windows.pool_windows(pooling, own)
        along = torch.linspace(-1, 1, value.numel()).view(value.shape).to(x).requires_grad_()
        (grad,) = torch.autograd.grad(value, own, along, create_graph=True)
        again = torch.linspace(1, 2, x.numel()).view(x.shape).to(x)
        return [value, grad, *torch.autograd.grad(grad, along, again)]

    return all_of


def _converted(x: Tensor) -> list[Tensor]:
    """Return a tensor in channels-last, and back."""
    last = converted(x, FORMATS[x.dim()])
    return [last, converted(last, torch.contiguous_format)]


def watch() -> int:
    """Call each on a GPU; return how many calls there were."""
    found = [[t.detach().cpu() for t in call(x.cuda())] for _, call, x in calls()]
    torch.cuda.synchronize()
    return len(found)


def hold() -> tuple[int, list[str]]:
    """Hold the results against the CPU's, and a second call's bits against the first's.

    Returns:
        How many calls there were, and what is wrong.
    """
    wrong: list[str] = []
    count = 0
    for what, call, x in calls():
        count += 1
        wanted = call(x.double())
        first, again = call(x.cuda()), call(x.cuda())
        for place, (one, other, truth) in enumerate(zip(first, again, wanted, strict=True)):
            if not torch.equal(one, other):
                wrong.append(f"{what}: a second call gives other bits")
            if not torch.allclose(one.detach().cpu().double(), truth, rtol=1e-6, atol=1e-6):
                wrong.append(f"{what}: result {place}")
    return count, wrong
