"""Counts what a forward pass of each example keeps for the backward pass, in MB: on a CPU, nothing is timed.

    python benchmarks/kept_bytes.py [NAME …]

In eager, with the partition that torch.compile takes (without its code generator), and fused, in float32 and
under autocast to bfloat16. Parameters, inputs and results are not counted: they are there anyway.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import write_table

from fusegen.models import FusegenBackend, computed_again, even_means


def kept(run: Any, model: nn.Module, inputs: list[Tensor], autocast: bool) -> float:
    """Return the MB that autograd keeps of a call."""
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    casts = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), casts:
        out = run(*inputs)
    outs = out if isinstance(out, tuple | list) else [out]
    for tensor in (*model.parameters(), *model.buffers(), *inputs, *outs):
        found.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(t.untyped_storage().nbytes() for t in found.values()) / 1e6


def main(names: list[str]) -> None:
    """Print a row for each example: eager, torch.compile, fused, in both ways."""
    torch.set_num_threads(1)
    # The examples are small: do all that is done to tensors of a megabyte.
    computed_again._LEAST_BYTES = even_means._LEAST_BYTES = 0
    with tempfile.TemporaryDirectory(prefix="kept_") as folder:
        for _, name, example in write_table.examples():
            if names and name not in names:
                continue
            model, inputs = example.start()
            row = []
            for autocast in (False, True):
                fused = FusegenBackend(Path(folder), everything=True)
                for backend in (None, "aot_eager_decomp_partition", fused):
                    torch._dynamo.reset()
                    own = copy.deepcopy(model)
                    run = torch.compile(own, backend=backend) if backend else own
                    row.append(kept(run, own, inputs, autocast))
            print(f"| {name} | {' | '.join(f'{number:.2f}' for number in row)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
