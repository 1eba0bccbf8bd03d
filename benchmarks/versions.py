"""Times the packages of one version of fusegen on a GPU: copy, forward, backward; medians in microseconds.

python benchmarks/versions.py FOLDER SPECS PREFIX RECORD.json

`versions.sh` calls it in turn with an old and a new version and prints both beside each other.
"""

from __future__ import annotations

import inspect
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import fusegen
from fusegen.toolchain import pipeline
from fusegen.tools.check.random_operands import random_operands

SPECS = (
    *("matmul_add_swish_tanh_gelu_hardtanh", "matmul_swish_scale", "matmul_gelu_softmax"),
    *("scale_softmax", "temperature_softmax", "matmul_dropout_softmax", "gated_rms_norm"),
    *("gemm_batchnorm_scale_softmax", "residual_add_gelu", "swish_tanh_mish", "layer_norm"),
    *("rms_norm", "log_softmax", "cross_entropy", "group_norm", "channel_softmax"),
)
#: Fewer of them, by name, where time is short.
SPECS = tuple(os.environ.get("FUSEGEN_SPECS", "").split()) or SPECS
DTYPES = (torch.float32, torch.bfloat16)
#: Rows and columns: in a warp, in a block, in single elements, in a cluster.
SHAPES = ((32768, 1024), (8192, 8192), (32768, 1023), (512, 131072))
IMAGES = ((64, 256, 56, 56), (16, 320, 33, 33))
WARM, ROUNDS = 4, 18


def timed(call: Callable[[], object], flush: torch.Tensor | None, cycles: int = 2_000_000) -> float:
    """Return the GPU's time for a call, in microseconds.

    Args:
        call: what is timed.
        flush: a tensor that is filled before, so that the cache holds nothing else; None to leave the cache.
        cycles: how long the GPU waits before, so that all launches are over before it gets to them.
    """
    if flush is not None:
        flush.zero_()
    torch.cuda._sleep(cycles)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) * 1e3


def given(derived: Any, apply: Callable[..., Any], shape: tuple[int, ...], dtype: Any) -> Any:
    """Return a random call of a chain: x, and the arguments of `apply` beside it."""
    generator = torch.Generator().manual_seed(0)
    drawn = random_operands(derived, torch.empty(shape, dtype=torch.float64), generator)
    moved = {"x": torch.randn(shape, device="cuda", dtype=dtype).requires_grad_()}
    for name, tensor in drawn.items():
        moved[name] = tensor.to("cuda")
        if tensor.is_floating_point():
            moved[name] = moved[name].to(dtype).requires_grad_("running" not in name)
    known = inspect.signature(apply).parameters
    options = {name: p.default for name, p in known.items() if p.default is not p.empty}
    options |= {"training": True} if "training" in known else {}
    options |= dict.fromkeys(derived.groups, 32)
    options = {n: v for n, v in options.items() if n not in moved and v is not None}
    if "seed" in known:
        options["seed"] = torch.tensor(5, device="cuda")
    return moved.pop("x"), {**moved, **options}


def main() -> None:
    """Measure every spec in every dtype and shape."""
    folder, specs, prefix, record = (
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        sys.argv[3],
        Path(sys.argv[4]),
    )
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    found = {}
    for name in SPECS:
        derived = pipeline.derive(specs / f"{prefix}{name}.yaml")
        apply = fusegen.load(f"{prefix}{name}", folder).apply
        shapes = IMAGES if name in ("group_norm", "channel_softmax") else SHAPES
        for dtype in DTYPES:
            for shape in shapes:
                torch.manual_seed(0)
                x, rest = given(derived, apply, shape, dtype)
                y = apply(x, **rest)
                leaves = [t for t in (x, *rest.values()) if getattr(t, "requires_grad", False)]
                grad, out = torch.randn_like(y), torch.empty_like(x)

                def backward(y=y, leaves=tuple(leaves), grad=grad) -> object:
                    return torch.autograd.grad(
                        y, leaves, grad, retain_graph=True, allow_unused=True
                    )

                calls = (
                    lambda x=x, out=out: out.copy_(x.detach()),
                    lambda apply=apply, x=x, rest=rest: apply(x, **rest),
                    backward,
                )
                rounds = [[timed(call, flush) for call in calls] for _ in range(WARM + ROUNDS)]
                cell = f"{name} {str(dtype).removeprefix('torch.')} {'x'.join(map(str, shape))}"
                found[cell] = [statistics.median(t) for t in zip(*rounds[WARM:], strict=True)]
    record.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
