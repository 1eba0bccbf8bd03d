"""Shows that a change leaves every result as it was, to the bit: hashes of results, before and after it.

    FUSEGEN_NATIVE=1 python tests/hash_results.py record before.json    # on the commit before
    FUSEGEN_NATIVE=1 python tests/hash_results.py record after.json     # on the commit after, same machine
    python tests/hash_results.py compare before.json after.json

It builds every spec of specs/, benchmarks/specs/, tests/chains/ and tests/segments/ for the CPU. For each it
hashes the value, the gradients and the second derivatives in each dtype, for training and evaluation, at two
shapes. The bits depend on the instruction set: FUSEGEN_CPU chooses one.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

import fusegen
from fusegen.chain import Chain
from fusegen.toolchain import pipeline
from fusegen.tools.check.compare import make_case

ROOT = Path(__file__).parents[1]
FOLDERS = ("specs", "benchmarks/specs", "tests/chains", "tests/segments")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
#: Rows and columns of the examples.
SHAPES = ((3, 33), (17, 130))


def main() -> None:
    """Record hashes, or compare two records; exit with 1 where they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    record = commands.add_parser("record")
    record.add_argument("file", type=Path)
    record.add_argument("specs", nargs="*", type=Path)
    compare = commands.add_parser("compare")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    args = parser.parse_args()
    if args.command == "record":
        specs = args.specs or [p for f in FOLDERS for p in sorted((ROOT / f).glob("*.yaml"))]
        found: dict[str, str] = {}
        for spec in specs:  # what is there is kept, if it ends early
            found |= recorded(spec)
            args.file.write_text(json.dumps(found, indent=1) + "\n")
        return
    before, after = (json.loads(f.read_text()) for f in (args.before, args.after))
    different = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    print(f"{len(before)} results before, {len(after)} after, {len(different)} differ")
    print("\n".join(different))
    sys.exit(bool(different))


def recorded(spec: Path) -> dict[str, str]:
    """Return a hash of each result of a spec, by what it is."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        fusegen.build(spec, out=folder, backend="cpu", quiet=True)
        derived = pipeline.derive(spec)
        package = fusegen.load(derived.spec.name, folder)
        for training in (True, False) if derived.moded else (True,):
            for shape, dtype in itertools.product(SHAPES, DTYPES):
                what = f"{derived.spec.name} {'train' if training else 'eval'} {shape} {dtype}"
                for name, result in results(package, derived, shape, dtype, training):
                    bits = result.detach().contiguous().view(-1).view(torch.uint8)
                    found[f"{what} {name}"] = hashlib.sha256(bits.numpy().tobytes()).hexdigest()[
                        :16
                    ]
    return found


def results(
    package: ModuleType, derived: Chain, shape: tuple[int, int], dtype: torch.dtype, training: bool
) -> Iterator[tuple[str, Tensor]]:
    """Yield the value of a random call, its gradients and its second derivatives, each with its name."""
    activation = list(derived.example_shape(*shape))
    if isinstance(derived.layout.groups, int):
        activation[1] = 2 * derived.layout.groups
    case = make_case(derived, activation, training=training, seed=3)
    moving = ["x", *(o.name for o in derived.operands if o.differentiable)]
    tensors = {"x": case.x, **case.operands}
    leaves = {
        n: (t.to(dtype) if t.is_floating_point() else t.clone()).requires_grad_(n in moving)
        for n, t in tensors.items()
    }
    operands = {n: t for n, t in leaves.items() if n != "x"}
    y = package.apply(leaves["x"], **operands, **case.options)
    yield "value", y
    inputs = [leaves[n] for n in moving]
    weights = torch.Generator().manual_seed(5)

    def gradients(of: list[Tensor], again: bool) -> tuple[Tensor, ...]:
        cotangents = [torch.randn(t.shape, generator=weights).to(t) for t in of]
        return torch.autograd.grad(
            of, inputs, cotangents, create_graph=again, allow_unused=True, materialize_grads=True
        )

    first = gradients([y], again=derived.spec.order > 1)
    yield from ((f"gradient of {n}", g) for n, g in zip(moving, first, strict=True))
    if derived.spec.order > 1:
        second = gradients([g for g in first if g.requires_grad], again=False)
        yield from ((f"second derivative of {n}", g) for n, g in zip(moving, second, strict=True))


if __name__ == "__main__":
    main()
