"""Times row kernels where 16 bytes do not divide a row, as multiples of the byte limit.

    bash benchmarks/odd_rows.sh RECORD_FOLDER

A time is the median of nine calls, between CUDA events, with the L2 cache emptied before each. The limit is
a copy of the rows, in the same round; one and a half of it backward.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

import fusegen

#: How many columns, and how many rows of 16 bits, so that a tensor has about 130 MB.
SHAPES = [
    (2_000_000, 33),
    (800_000, 99),
    (400_000, 201),
    (120_000, 541),
    (65_536, 1001),
    (40_000, 1501),
    (16_384, 3001),
    (8_192, 7001),
]


def main(folder: Path) -> None:
    """Print a line for each op, dtype and shape; `folder` holds the packages."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for name, operands in {"layer_norm": 2, "log_softmax": 0}.items():
        op = fusegen.load(name, folder)
        for dtype in (torch.bfloat16, torch.float32):
            for rows, cols in SHAPES:
                rows = rows * 2 // dtype.itemsize
                forward, backward = over_limit(op, rows, cols, dtype, operands)
                times = f"forward {forward:.2f}, backward {backward:.2f}"
                print(f"{name} {str(dtype)[6:]} {rows}x{cols}: {times}", flush=True)


def over_limit(
    op: ModuleType, rows: int, cols: int, dtype: torch.dtype, operands: int
) -> tuple[float, float]:
    """Return the times of an op's forward and backward as multiples of their limits."""
    x = torch.randn(rows, cols, device="cuda", dtype=dtype, requires_grad=True)
    held = [x.new_empty(cols).normal_().requires_grad_() for _ in range(operands)]
    y = op.apply(x, *held)
    cotangent, into = torch.randn_like(y), torch.empty_like(x)
    copy, forward, backward = medians(
        lambda: into.copy_(x.detach()),
        lambda: op.apply(x, *held),
        lambda: torch.autograd.grad(y, [x, *held], cotangent, retain_graph=True),
    )
    return forward / copy, backward / copy / 1.5


def medians(*calls: Callable[[], object]) -> list[float]:
    """Return the median time of each call in ms, of nine rounds after two."""
    emptying = torch.empty(64 << 20, device="cuda")
    times: list[list[float]] = [[] for _ in calls]
    for number in range(11):
        for call, found in zip(calls, times, strict=True):
            emptying.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(200_000)  # the host queues the call meanwhile
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            if number > 1:
                found.append(begin.elapsed_time(end))
    return [sorted(found)[4] for found in times]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
