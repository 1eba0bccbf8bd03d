"""Calls every kernel of every spec once in each of its forms, for compute-sanitizer to watch.

    compute-sanitizer --tool memcheck python benchmarks/sanitize.py
    compute-sanitizer --tool racecheck python benchmarks/sanitize.py

Odd lengths take the kernels that read single elements. The shapes cover lanes of a warp, a warp, blocks,
clusters and streamed rows; for pointwise kernels tall, wide and flat grids.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import fusegen
from fusegen import pipeline, verify

ROOT = Path(__file__).resolve().parent.parent
SHAPES = [(9, 40), (5, 33), (3, 700), (3, 4096), (2, 9001), (2, 16384), (2, 65536), (2, 2**18 + 8)]
DTYPES = [torch.float32, torch.bfloat16]


def main() -> None:
    """Call the specs named on the command line, or all."""
    calls = 0
    for path in sorted((ROOT / "specs").glob("*.yaml")):
        if sys.argv[1:] and path.stem not in sys.argv[1:]:
            continue
        chain, built = pipeline.derive(path), fusegen.load(path.stem, ROOT / "generated")
        for shape in SHAPES:
            for dtype in DTYPES:
                for training in (False, True) if len(chain.modes) == 2 else (False,):
                    case = verify.make_case(chain, shape, training=training, device="cuda")
                    leaves = [case.x, *case.operands.values()]
                    moving = [True, *(o.differentiable for o in chain.operands)]
                    given = [
                        t.to(dtype).requires_grad_(m) for t, m in zip(leaves, moving, strict=True)
                    ]
                    out = built.apply(*given, **case.options)
                    out.backward(torch.ones_like(out))
                    calls += 2
        torch.cuda.synchronize()
        print(path.stem, flush=True)
    print(f"{calls} calls")


if __name__ == "__main__":
    main()
