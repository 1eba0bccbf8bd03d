"""The blocks of `examples/` on a GPU: eager, torch.compile, and fusegen, with eager or Inductor for the rest.

python benchmarks/fused_models.py warm    FOLDER [--shard i/n] [NAME …]
python benchmarks/fused_models.py measure FOLDER --output RECORD.json [NAME …]

Each block of blocks.py runs in bfloat16, as `fusegen bench MODEL` does it: all subjects in one process, in
turns; medians of the GPU's time, the time of passes that follow one another, and the most memory that a pass
allocates. Before it is timed, each gradient is held against the model in float32, beside eager's own error.
FOLDER holds the packages. fused_models.sh calls both.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from blocks import BLOCKS, Block
from torch import Tensor, nn

from fusegen.base.files import write_if_different
from fusegen.models import FusegenBackend
from fusegen.tools.against_eager.bench import bench, compile_all
from fusegen.tools.against_eager.original import Original, changed, through
from fusegen.tools.bench import compiling, machine
from fusegen.tools.bench.record import rounded

DTYPE = torch.bfloat16
say = functools.partial(print, flush=True)


def backends(folder: Path, without: Collection[str] = ()) -> dict[str, FusegenBackend | str | None]:
    """Return the back end of each subject, by its name in a cell; some are left out."""
    found: dict[str, FusegenBackend | str | None] = {
        "eager": None,
        "compile": "inductor",
        "fusegen": FusegenBackend(folder, 1),  # one package for both passes
        "fusegen_inductor": FusegenBackend(folder, 1, rest="inductor"),
    }
    return {name: backend for name, backend in found.items() if name not in without}


def original_of(block: Block) -> Original:
    """Return a block as the command line would make it."""
    torch.manual_seed(0)
    return Original(block.title, block.make(), block.inputs, "cuda")


def _is_random(model: nn.Module) -> bool:
    """Whether a model draws random numbers, other ones than itself fused."""
    return any(isinstance(m, nn.Dropout) or getattr(m, "drop", 0.0) for m in model.modules())


def _gradients(call: Any, model: nn.Module, given: Any) -> list[Tensor]:
    """Return the outputs and the gradients of the parameters, in float32."""
    model.zero_grad()
    out = call(*given.args, **given.kwargs)
    out.backward(torch.sin(torch.arange(out.numel(), device=out.device)).view_as(out).to(out.dtype))
    found = [out, *(p.grad for p in model.parameters() if p.grad is not None)]
    return [t.detach().float() for t in found]


def largest_error(original: Original, folder: Path) -> float | None:
    """Return the largest error of a result, in units of eager's: both as Frobenius norms, against float32.

    A model that draws random numbers has none.
    """
    if _is_random(original.model):
        return None

    def results(dtype: torch.dtype, backend: FusegenBackend | None) -> list[Tensor]:
        model = original.copy(DTYPE, train=True).to(dtype)
        call = model if backend is None else through(model, backend)
        return _gradients(call, model, changed(original.given(DTYPE), lambda t: t.to(dtype)))

    truth = results(torch.float32, None)
    eager = results(DTYPE, None)
    fused = results(DTYPE, FusegenBackend(folder, 1))
    assert len(truth) == len(eager) == len(fused)
    worst = 0.0
    for exact, one, other in zip(truth, eager, fused, strict=True):
        unit = torch.linalg.vector_norm(one - exact) + torch.linalg.vector_norm(exact) * 2**-9
        worst = max(worst, float(torch.linalg.vector_norm(other - exact) / unit))
    return worst


def measured(name: str, folder: Path, without: Collection[str]) -> list[dict[str, Any]]:
    """Return a block's cells: one for each pass."""
    block = BLOCKS[name]
    original, subjects = original_of(block), backends(folder, without)
    error = largest_error(original, folder)
    compiling.forget()
    cells = []
    for timed in bench(original, subjects, DTYPE, say):
        cell = {"model": name, "title": block.title, "inputs": block.inputs, "pass": timed.name}
        cell |= {"dtype": timed.dtype, "error_in_units_of_eager": error and round(error, 2)}
        cell |= {f"{label}_ms": rounded(ms) for label, ms in timed.ms.items()}
        cell |= {f"{label}_wall_ms": rounded(ms) for label, ms in timed.wall.items()}
        cell |= {f"{label}_peak_mb": round(peak / 1e6) for label, peak in timed.peak.items()}
        cells.append(cell)
    used = subjects["fusegen"]
    assert isinstance(used, FusegenBackend)
    report = used.report
    fused = sum(not region.reason for region in report.regions)
    for cell in cells:
        cell["regions"] = f"{fused} of {len(report.regions)} fused"
    return cells


def row(cell: Mapping[str, Any]) -> str:
    """Return a cell as a line: times and memory of torch.compile's."""
    parts = [f"{cell['model']} {cell['pass']}: compile {cell.get('compile_ms')} ms"]
    for label in ("eager", "fusegen", "fusegen_inductor"):
        if "compile_ms" in cell and f"{label}_ms" in cell:
            ratio = cell[f"{label}_ms"] / cell["compile_ms"]
            memory = cell[f"{label}_peak_mb"] / cell["compile_peak_mb"]
            wall = cell[f"{label}_wall_ms"] / cell["compile_wall_ms"]
            parts.append(f"{label} {ratio:.3f} (with the host {wall:.3f}, memory {memory:.2f})")
    return f"{', '.join(parts)}; error {cell['error_in_units_of_eager']}; {cell['regions']}"


def measure(names: list[str], folder: Path, output: Path, without: Collection[str]) -> None:
    """Measure the blocks and write the record after each."""
    record: dict[str, Any] = {"machine": machine.describe("cuda"), "cells": []}
    for name in names:
        begun = time.monotonic()
        try:
            found = measured(name, folder, without)
        except Exception as error:  # whatever it is, the other blocks go on
            if "CUDA error" in str(error):
                raise  # nothing works in this process any more
            say(f"{name} fails: {type(error).__name__}: {str(error)[:300]}")
            continue
        finally:
            compiling.forget()
        record["cells"] += found
        cells = ",\n".join(json.dumps(cell) for cell in record["cells"])
        about = json.dumps(record["machine"], indent=1)
        write_if_different(output, f'{{"machine": {about},\n"cells": [\n{cells}\n]}}\n')
        for cell in found:
            say(row(cell))
        say(f"{name}: {time.monotonic() - begun:.0f} s")


def warm(names: list[str], folder: Path, without: Collection[str]) -> None:
    """Compile what the blocks need, without timing."""
    for name in names:
        begun = time.monotonic()
        compile_all(original_of(BLOCKS[name]), backends(folder, without), DTYPE, say)
        compiling.forget()
        say(f"{name}: compiled in {time.monotonic() - begun:.0f} s")


def main() -> None:
    """Run one mode."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("warm", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shard", default="1/1", metavar="i/n", help="every n-th from the i-th on")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--without", action="append", default=[], metavar="SUBJECT")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BLOCKS)}")
    given = parser.parse_intermixed_args()
    if unknown := [name for name in given.names if name not in BLOCKS]:
        sys.exit(f"no block is called {unknown[0]}; there are {', '.join(BLOCKS)}")
    first, count = map(int, given.shard.split("/"))
    names = (given.names or list(BLOCKS))[first - 1 :: count]
    compiling.set_up(one_thread=given.mode == "warm")
    if given.mode == "warm":
        warm(names, given.folder, given.without)
    else:
        measure(names, given.folder, given.output, given.without)


if __name__ == "__main__":
    main()
