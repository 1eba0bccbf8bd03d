"""Blocks of `examples/` in a CUDA graph on a GPU: eager, torch.compile and fusegen, each also as it is.

python benchmarks/graphed.py FOLDER --output RECORD.json [NAME …]

`torch.cuda.make_graphed_callables` records a model's forward and backward pass once; a call then replays
them, and the host only starts that. Times are those of passes that follow one another, forward + backward in
bfloat16, medians. The results of a graph are held against those of the same model without one. FOLDER holds
the packages that fused_models.py has built.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from blocks import BLOCKS
from fused_models import DTYPE, backends, original_of
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen.base.files import write_if_different
from fusegen.tools.bench import compiling, machine, timing

#: Blocks whose host is slower than the GPU without a graph.
DEFAULT = ("U-Net", "DiT", "LSTM")


def passes(
    call: Callable[..., Any], model: nn.Module, given: Any
) -> Callable[[], tuple[Tensor, ...]]:
    """Return what runs a forward and a backward pass, and returns the output and the gradients."""

    def run() -> tuple[Tensor, ...]:
        model.zero_grad(set_to_none=True)
        out = call(*given.args, **given.kwargs)
        out.backward(torch.ones_like(out))
        return (out.detach(), *(p.grad for p in model.parameters() if p.grad is not None))

    return run


def largest_difference(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """Return the largest difference of a result, as a part of its norm."""
    norm = torch.linalg.vector_norm
    return max(
        float(norm(a.float() - b.float()) / norm(b.float()).clamp_min(1e-30))
        for a, b in zip(found, wanted, strict=True)
    )


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Return the times of a block, and how far a graph's results are from those without it."""
    original = original_of(BLOCKS[name])
    runs: dict[str, timing.Prepare] = {}
    cell: dict[str, Any] = {"model": name, "pass": "forward + backward", "dtype": "bfloat16"}
    for label, backend in backends(folder, ["fusegen_inductor"]).items():
        results = []
        for graphed in (False, True):
            model = original.copy(DTYPE, train=True)
            call = model if backend is None else torch.compile(model, backend=backend)
            given = original.given(DTYPE)
            run = passes(call, model, given)
            run()  # compiles it
            if graphed:
                model.zero_grad(set_to_none=True)
                sample = _pytree.tree_map(torch.clone, tuple(given.args))
                run = passes(torch.cuda.make_graphed_callables(call, sample), model, given)
            results.append(tuple(t.clone() for t in run()))
            runs[f"{label}_graphed" if graphed else label] = lambda run=run: run
        cell[f"{label}_difference"] = largest_difference(results[1], results[0])
    cell |= {f"{label}_wall_ms": round(ms, 3) for label, ms in timing.walls(runs).items()}
    return cell


def main() -> None:
    """Measure the blocks and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BLOCKS)}")
    given = parser.parse_intermixed_args()
    compiling.set_up()
    record: dict[str, Any] = {"machine": machine.describe("cuda"), "cells": []}
    for name in given.names or DEFAULT:
        record["cells"].append(measured(name, given.folder))
        compiling.forget()
        print(json.dumps(record["cells"][-1]), flush=True)
        write_if_different(given.output, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
