"""Calls every kernel of every spec once in each of its forms, for compute-sanitizer to watch.

    compute-sanitizer --tool memcheck python benchmarks/sanitize.py
    compute-sanitizer --tool racecheck python benchmarks/sanitize.py

Odd lengths take the kernels that read single elements. The shapes cover lanes of a warp, a warp, blocks,
clusters and streamed rows; for pointwise kernels tall, wide and flat grids; for rows whose columns lie apart
those that a block holds, in vectors and one by one, and those that it reads again. Forward, backward, and
double backward where there is one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import fusegen
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify

ROOT = Path(__file__).resolve().parent.parent
#: Where packages of specs lie; the second ones are those that benchmarks/vocabulary.sh builds.
FOLDERS = {
    ROOT / "specs": ROOT / "generated",
    ROOT / "benchmarks/specs": Path("/tmp/fusegen_vocabulary"),
}
SHAPES = [(9, 40), (5, 33), (3, 700), (3, 4096), (2, 9001), (2, 16384), (2, 65536), (2, 2**18 + 8)]
IMAGES = [(2, 32, 3, 3), (3, 64, 4, 8), (2, 256, 7, 7), (2, 256, 16, 16), (1, 8192, 2, 5)]
DTYPES = [torch.float32, torch.bfloat16]


def call(spec: Path, packages: Path) -> int:
    """Call a spec's package with every shape and dtype; return how many kernels were asked for."""
    chain, built = pipeline.derive(spec), fusegen.load(spec.stem, packages)
    calls = 0
    for shape in SHAPES if chain.layout.rank == 2 else IMAGES:
        for dtype in DTYPES:
            for training in (False, True) if len(chain.modes) == 2 else (False,):
                case = verify.make_case(chain, shape, training=training, device="cuda")
                moving = [True, *(o.differentiable for o in chain.operands)]
                given = [
                    (t.to(dtype) if t.is_floating_point() else t).requires_grad_(m)
                    for t, m in zip([case.x, *case.operands.values()], moving, strict=True)
                ]
                named = dict(zip(case.operands, given[1:], strict=True))
                out = built.apply(given[0], **named, **case.options)
                leaves = [t for t, m in zip(given, moving, strict=True) if m]
                twice = chain.spec.order > 1
                first = torch.autograd.grad(out, leaves, torch.ones_like(out), create_graph=twice)
                if twice:
                    torch.autograd.grad([t.sum() for t in first], leaves, allow_unused=True)
                calls += 2 + twice
    torch.cuda.synchronize()
    return calls


def main() -> None:
    """Call the specs named on the command line, or all that are built."""
    calls = 0
    for folder, packages in FOLDERS.items():
        for spec in sorted(folder.glob("*.yaml")) if packages.is_dir() else []:
            if not sys.argv[1:] or spec.stem in sys.argv[1:]:
                calls += call(spec, packages)
                print(spec.stem, flush=True)
    print(f"{calls} calls")


if __name__ == "__main__":
    main()
