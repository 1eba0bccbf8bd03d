"""Prints the kernels of fusegen in random cells: what each takes, and how it was launched.

    python benchmarks/random_kernels.py FOLDER SEED CELLS [WORST.json N]

FOLDER holds the packages (`benchmarks/random.sh OUT SEED CELLS build` builds them in
/tmp/fusegen_random_SEED). With a record of the same draw, only its N cells that are farthest from the byte
limit are run. Times are torch.profiler's.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fusegen.runtime.loading import load_package
from fusegen.toolchain import pipeline
from fusegen.tools.bench.sweep.build import spec_file
from fusegen.tools.bench.sweep.cases import MEGABYTES, Case, Draw
from fusegen.tools.bench.sweep.tensors import make_set

WIDTH = 150
_NOISE = re.compile(r"\(anonymous namespace\)::|<unnamed>::|at::native::|^void |fusegen::")


def launches(call: Callable[[], object]) -> list[dict[str, Any]]:
    """Return the kernels that a call runs, in their order, as the trace has them."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        seen.export_chrome_trace(file.name)
        events = json.loads(Path(file.name).read_text())["traceEvents"]
    found = [e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    return sorted(found, key=lambda event: float(event["ts"]))


def show(title: str, call: Callable[[], object]) -> None:
    """Print the kernels of a call."""
    print(title)
    for event in launches(call):
        name = re.sub(r"fusegen_(\w+)::", "", _NOISE.sub("", event["name"]))[:WIDTH]
        given = event["args"]
        grid, block = given.get("grid", [0]), given.get("block", [0])
        held = (
            f"{given.get('registers per thread', 0)} registers, {given.get('shared memory', 0)} B"
        )
        print(f"{event['dur']:9.1f} us  {grid}x{block} {held}  {name}", flush=True)


def main() -> None:
    """Print the kernels of each case."""
    folder, seed, cells = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    draw = Draw(seed, cells, MEGABYTES["cuda"])
    chosen = {case.index for case in draw.cases()}
    if len(sys.argv) > 4:
        record = json.loads(Path(sys.argv[4]).read_text())["cells"]
        record.sort(key=lambda cell: -cell["fusegen_ms"] / cell["limit_ms"])
        chosen = {cell["case"] for cell in record[: int(sys.argv[5])]}
    for case in draw.cases():
        if case.index in chosen:
            profiled(case, folder)


def profiled(case: Case, folder: Path) -> None:
    """Print the kernels of a case's forward and backward."""
    chain = pipeline.derive(spec_file(case.spec, folder))
    package = load_package(case.spec.name, folder)
    options: dict[str, Any] = {} if case.groups is None else {"groups": case.groups}
    if chain.moded:
        options["training"] = True
    tensors = make_set(case, chain, torch.Generator("cuda").manual_seed(case.index))
    y = package.apply(*tensors.given, **options)

    def backward() -> object:
        return torch.autograd.grad(y, tensors.moving, tensors.cotangent, retain_graph=True)

    backward()
    show(f"{case.title} forward", lambda: package.apply(*tensors.given, **options))
    show(f"{case.title} backward", backward)


if __name__ == "__main__":
    main()
