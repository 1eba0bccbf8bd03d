"""Times the built tails against eager and a copy, on the GPU or the CPU.

    python benchmarks/tails.py [cuda|cpu] RECORD.json

Every variant runs in one process, interleaved, on random data rotated through more memory than the caches
hold; a number is the median over the rounds, in milliseconds. `copy` is `y.copy_(x)` on the same tensor.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fusegen import load, pipeline
from fusegen.eager import random_operand, run_chain

ROOT = Path(__file__).resolve().parent.parent
SPECS = [
    "matmul_add_swish_tanh_gelu_hardtanh",
    "matmul_swish_scale",
    "matmul_gelu_softmax",
    "matmul_dropout_softmax",
    "temperature_softmax",
]
SHAPES = {"cuda": [(8192, 8192), (32768, 1024), (2048, 65536)], "cpu": [(1024, 8192)]}
DTYPES = [torch.float32, torch.bfloat16]
ROUNDS = {"cuda": 15, "cpu": 5}


def timed(function: Callable[[], object], device: str) -> float:
    """Return the milliseconds of one call."""
    if device == "cpu":
        started = time.perf_counter()
        function()
        return (time.perf_counter() - started) * 1e3
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(2_000_000)  # about a millisecond, in which the host queues all that is timed
    begin.record()
    function()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))


def cells(
    name: str, shape: tuple[int, int], dtype: torch.dtype, device: str
) -> list[dict[str, object]]:
    """Return the forward's and the backward's times of one tail."""
    chain = pipeline.derive(ROOT / "specs" / f"{name}.yaml")
    package = load(name, ROOT / "generated")
    generator = torch.Generator().manual_seed(0)
    sets = []
    for _ in range(3):
        x = torch.randn(shape, device=device, dtype=dtype).requires_grad_()
        operands = {
            o.name: random_operand(o, x, generator).detach().requires_grad_()
            for o in chain.operands
        }
        sets.append((x, operands, torch.randn_like(x)))
    numbers = {a.name: a.default or 1.5 for a in chain.spec.arguments if a.name in chain.attributes}
    moded = len(chain.modes) == 2
    options = {**numbers, **({"training": True} if moded else {})}

    def eager(x: Tensor, operands: dict[str, Tensor]) -> Tensor:
        if "dropout" in name:
            dropped = torch.nn.functional.dropout(x + operands["matmul_bias"], numbers["dropout_p"])
            return torch.softmax(dropped, dim=1)
        return run_chain(chain.spec, x, operands, numbers)

    def ours(x: Tensor, operands: dict[str, Tensor]) -> Tensor:
        result: Tensor = package.apply(x, *operands.values(), **options)
        return result

    times: dict[str, list[float]] = {}
    out = torch.empty_like(sets[0][0])
    for turn in range(ROUNDS[device] + 2):
        x, operands, cotangent = sets[turn % 3]
        leaves = [x, *operands.values()]
        for label, function in (("fusegen", ours), ("eager", eager)):
            with torch.no_grad():
                forward = timed(lambda f=function, a=x, b=operands: f(a, b), device)
            value = function(x, operands)
            backward = timed(
                lambda v=value, n=leaves, g=cotangent: torch.autograd.grad(v, n, g), device
            )
            if turn >= 2:
                times.setdefault(f"{label} forward", []).append(forward)
                times.setdefault(f"{label} backward", []).append(backward)
        copied = timed(lambda a=x: out.copy_(a.detach()), device)
        if turn >= 2:
            times.setdefault("copy", []).append(copied)
    median = {label: statistics.median(values) for label, values in times.items()}
    return [
        {
            "spec": name,
            "dtype": str(dtype).removeprefix("torch."),
            "rows": shape[0],
            "cols": shape[1],
            "direction": direction,
            "fusegen_ms": round(median[f"fusegen {direction}"], 4),
            "eager_ms": round(median[f"eager {direction}"], 4),
            "copy_ms": round(median["copy"], 4),
        }
        for direction in ("forward", "backward")
    ]


def machine(device: str) -> dict[str, str]:
    """Return what the times were taken on."""
    found = {"torch": torch.__version__, "python": platform.python_version()}
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found["chip"] = subprocess.run(
            query, capture_output=True, text=True, check=True
        ).stdout.strip()
    else:
        info = Path("/proc/cpuinfo").read_text()
        found["chip"] = info.split("model name\t: ", 1)[1].split("\n", 1)[0]
        found["threads"] = str(torch.get_num_threads())
    return found


def main() -> None:
    """Measure every cell, print it as multiples of copy, write the record."""
    device, record = sys.argv[1], Path(sys.argv[2])
    found = []
    for name in SPECS:
        for shape in SHAPES[device]:
            for dtype in DTYPES:
                for cell in cells(name, shape, dtype, device):
                    found.append(cell)
                    copy, fused, eager = (
                        float(str(cell[k])) for k in ("copy_ms", "fusegen_ms", "eager_ms")
                    )
                    place = f"{name} {shape[0]}x{shape[1]} {cell['dtype']} {cell['direction']}"
                    print(
                        f"{place:72s} fusegen {fused / copy:6.2f}  eager {eager / copy:6.2f} x copy"
                    )
    record.write_text(json.dumps({"machine": machine(device), "cells": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
