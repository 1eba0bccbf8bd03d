"""Prints where the time of a block's forward and backward pass goes: torch.compile's kernels and fusegen's.

python benchmarks/block_kernels.py FOLDER NAME …

The blocks are those of blocks.py, and FOLDER holds the packages, as for fused_models.py. For each kernel:
microseconds and launches in one pass, by torch.profiler, the longest first.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from blocks import BLOCKS
from fused_models import DTYPE, backends, original_of
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from fusegen.tools.against_eager.bench import prepared
from fusegen.tools.bench import compiling

SHOWN, WIDTH = 26, 120
#: What says nothing in the name of a kernel.
_NOISE = re.compile(r"\(anonymous namespace\)::|<unnamed>::|at::native::|^void |fusegen::")


def kernels(call: Callable[[], object]) -> tuple[Counter[str], Counter[str]]:
    """Return the microseconds and the launches of each kernel of a call, by its name."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    times, launches = Counter[str](), Counter[str]()
    for event in seen.events() or ():
        if event.device_type == DeviceType.CUDA:
            name = re.sub(r"fusegen_(\w+)::", r"\1:", _NOISE.sub("", event.name))[:WIDTH]
            times[name] += round(event.device_time_total)
            launches[name] += 1
    return times, launches


def main() -> None:
    """Print the tables of the blocks that are named."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    compiling.set_up()
    for name in names:
        subjects = {k: b for k, b in backends(folder).items() if b is not None}
        calls = prepared(original_of(BLOCKS[name]), subjects, DTYPE, "forward + backward")
        for label, prepare in calls.items():
            for _ in range(2):  # the first compiles
                prepare()()
            times, launches = kernels(prepare())
            print(f"{name}, {label}: {times.total()} us in {launches.total()} kernels")
            for kernel, taken in times.most_common(SHOWN):
                print(f"{taken:8d} {launches[kernel]:4d}  {kernel}", flush=True)
        compiling.forget()


if __name__ == "__main__":
    main()
