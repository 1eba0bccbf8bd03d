"""Times the chains of benchmarks/cells on a GPU, each at one shape: multiples of the byte limit, and kernels.

python benchmarks/cells.py FOLDER_OF_PACKAGES [NAME …]

The limit is the time that the tensors' bytes take at the rate of a copy, which is timed between the calls. A
forward pass reads x and writes y; a backward pass reads x and the cotangent and writes the gradient of x.
Medians, in microseconds, after a flushed cache. A kernel that adds partial sums may start before the one that
leaves them ends; its time includes the wait. `cells.sh` builds the packages and calls this.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from versions import given, timed

import fusegen
from fusegen.toolchain import pipeline

#: The shape of each chain, and how many tensors of its size a forward and a backward pass move.
#: With two segments, the value between them is written and read.
CELLS = {
    "swish_bias_group_norm": ((32768, 4096), 2, 3),
    "group_norm_of_16": ((1024, 8192), 2, 3),
    "group_norm_of_64": ((1024, 8192), 2, 3),
    "group_norm_of_512": ((1024, 8192), 2, 3),
    "gelu_group_norm": ((128, 64, 258, 258), 2, 3),
    "swish_group_norm_hardswish": ((128, 16, 31, 63, 63), 2, 3),
    "relu_group_norm": ((16, 128, 34, 34, 34), 2, 3),
    "subtract_tanh": ((32, 64, 513, 513), 2, 3),
    "group_norm_residual_logsumexp": ((128, 64, 126, 126), 3, 5),
}
WARM, ROUNDS = 2, 9


def kernels(call: Callable[[], object]) -> dict[str, float]:
    """Return the microseconds of each kernel of a call."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
    taken = defaultdict(float)
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            name = event.name.split("::")[-1] if "<" not in event.name else event.name
            taken[short(name)] += event.time_range.elapsed_us() / 3
    return dict(taken)


def short(name: str) -> str:
    """Return a kernel's name and its numbers, without the types that a template was given."""
    bare, _, given = name.partition("<")
    numbers = [word for word in given.replace("(", " ").replace(")", " ").split(",") if word]
    tail = [word.strip().split()[-1] for word in numbers if word.strip()[-1:].isdigit()]
    return bare.split("::")[-1].removeprefix("void ") + "<" + ",".join(tail[-5:]) + ">"


def main() -> None:
    """Measure every cell, or those that were named."""
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    folder, names = Path(sys.argv[1]), sys.argv[2:] or list(CELLS)
    for name in names:
        shape, *moved = CELLS[name]
        derived = pipeline.derive(Path(__file__).parent / "cells" / f"{name}.yaml")
        apply = fusegen.load(name, folder).apply
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(0)
            x, rest = given(derived, apply, shape, dtype)
            y = apply(x, **rest)
            leaves = [t for t in (x, *rest.values()) if getattr(t, "requires_grad", False)]
            grad, out = torch.randn_like(y), torch.empty_like(x)

            def backward(y=y, leaves=tuple(leaves), grad=grad) -> object:
                return torch.autograd.grad(y, leaves, grad, retain_graph=True, allow_unused=True)

            def forward(x=x, rest=rest, apply=apply) -> object:
                with torch.no_grad():
                    return apply(x, **rest)

            calls = (lambda x=x, out=out: out.copy_(x.detach()), forward, backward)
            rounds = [[timed(call, flush) for call in calls] for _ in range(WARM + ROUNDS)]
            copy, *times = (statistics.median(t) for t in zip(*rounds[WARM:], strict=True))
            cell = f"{name} {str(dtype).removeprefix('torch.')} {'x'.join(map(str, shape))}"
            ratios = [t / (copy / 2 * n) for t, n in zip(times, moved, strict=True)]
            print(f"{cell}: copy {copy:.1f} us, forward {ratios[0]:.2f}, backward {ratios[1]:.2f}")
            for direction, call in (("forward", forward), ("backward", backward)):
                for kernel, taken in kernels(call).items():
                    print(f"    {direction} {taken:9.1f} us  {kernel}")
            del x, y, rest, leaves, grad, out, calls, forward, backward
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
