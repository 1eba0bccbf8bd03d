"""Times the packages of one version of fusegen on a GPU: copy, forward, backward; medians in microseconds.

python benchmarks/versions.py FOLDER PREFIX RECORD.json

`versions.sh` calls it in turn with an old and a new version and prints both beside each other.
"""

from __future__ import annotations

import inspect
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fusegen

SPECS = (
    *("matmul_add_swish_tanh_gelu_hardtanh", "matmul_swish_scale", "matmul_gelu_softmax"),
    *("scale_softmax", "matmul_dropout_softmax", "gated_rms_norm", "layer_norm"),
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((8192, 8192), (32768, 1024))
WARM, ROUNDS = 4, 18


def timed(call: Callable[[], object], flush: torch.Tensor) -> float:
    """Return the GPU's time for a call after a flushed cache, in microseconds."""
    flush.zero_()
    torch.cuda._sleep(400_000)  # the launch is over before the GPU gets to it
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) * 1e3


def operands(apply: Callable[..., Any], name: str, cols: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return random operands for a package's call: a column's each, a scalar where a softmax is scaled."""
    given: dict[str, Any] = {}
    for parameter in list(inspect.signature(apply).parameters.values())[1:]:
        if parameter.name == "seed":
            given["seed"] = torch.tensor(5, device="cuda")
        elif parameter.name == "training":
            given["training"] = True
        elif parameter.default is inspect.Parameter.empty:
            shape = () if parameter.name == "scale" and "softmax" in name else (cols,)
            drawn = torch.randn(shape, device="cuda", dtype=dtype)
            given[parameter.name] = drawn.requires_grad_()
    return given


def main() -> None:
    """Measure every spec in every dtype and shape."""
    folder, prefix, record = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    found = {}
    for name in SPECS:
        apply = fusegen.load(f"{prefix}{name}", folder).apply
        for dtype in DTYPES:
            for shape in SHAPES:
                torch.manual_seed(0)
                x = torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=True)
                given = operands(apply, name, shape[1], dtype)
                y = apply(x, **given)
                grad, out = torch.randn_like(y), torch.empty_like(y)
                moving = [t for t in given.values() if getattr(t, "requires_grad", False)]

                def backward(y=y, leaves=(x, *moving), grad=grad) -> object:
                    return torch.autograd.grad(y, leaves, grad, retain_graph=True)

                calls = (
                    lambda x=x, out=out: out.copy_(x.detach()),
                    lambda apply=apply, x=x, given=given: apply(x, **given),
                    backward,
                )
                rounds = [[timed(call, flush) for call in calls] for _ in range(WARM + ROUNDS)]
                cell = f"{name} {str(dtype).removeprefix('torch.')} {shape[0]}x{shape[1]}"
                found[cell] = [statistics.median(t) for t in zip(*rounds[WARM:], strict=True)]
    record.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
