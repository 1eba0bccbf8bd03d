"""Times each function that formulas may call, by itself, beside eager and torch.compile on a CPU.

    OMP_NUM_THREADS=1 python benchmarks/functions.py RECORD.txt [NAMES]

A time is the least of 15 calls, the versions in turn, of 2^20 random numbers from the function's domain. It
is of the forward pass, and of that and its gradient.
"""

from __future__ import annotations

import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import fusegen
from fusegen.atoms import ATOMS, Atom

Function = Callable[[Tensor], Tensor]

COUNT, ROUNDS = 2**20, 15
#: Functions whose domain `Atom.smooth` does not give, for it is of derivatives.
DOMAINS = {"acos": (-1.0, 1.0), "acosh": (1.0, 4.0), "asin": (-1.0, 1.0), "atanh": (-1.0, 1.0)}


def functions() -> dict[str, Atom]:
    """Return the atoms of one argument that a formula may call, by their words."""
    return {
        atom.word: atom
        for function, atom in sorted(ATOMS.items(), key=lambda pair: pair[1].word or "")
        if atom.word and atom.calls and 1 in (getattr(function, "nargs", None) or ())
    }


def numbers(word: str, atom: Atom, dtype: torch.dtype) -> Tensor:
    """Return random numbers between -3 and 3 from a function's domain."""
    low, high = DOMAINS.get(word) or (*atom.smooth, (-3.0, 3.0))[0]
    low, high = max(low, -3.0) + 0.01, min(high, 3.0) - 0.01
    return (torch.rand(COUNT) * (high - low) + low).to(dtype)


def trained(call: Function, x: Tensor, cotangent: Tensor) -> None:
    """Call a function, and compute the gradient of its input where it has one."""
    y = call(x)
    if y.requires_grad:
        torch.autograd.grad(y, x, cotangent)


def least(calls: list[Callable[[], object]]) -> str:
    """Return the least time of each call in milliseconds, after two that do not count."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS + 2):
        for call, found in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            found.append((time.perf_counter() - started) * 1e3)
    return "/".join(f"{min(found[2:]):.2f}" for found in times)


def measure(word: str, atom: Atom, own: Function) -> str:
    """Return a function's line: for each dtype and pass, the time of fusegen/eager/torch.compile."""

    def eager(x: Tensor) -> Tensor:
        result: Tensor = atom.torch(torch, x)
        return result

    compiled = torch.compile(eager, dynamic=False)
    cells = []
    for dtype in (torch.float32, torch.bfloat16):
        x, cotangent = numbers(word, atom, dtype), torch.randn(COUNT).to(dtype)
        leaf = x.clone().requires_grad_()
        cells.append(least([partial(call, x) for call in (own, eager, compiled)]))
        cells.append(
            least([partial(trained, call, leaf, cotangent) for call in (own, eager, compiled)])
        )
    return f"{word:<12}" + "".join(f"{cell:>20}" for cell in cells)


def main(record: Path, names: list[str]) -> None:
    """Build a package for each function, and write a line for each."""
    chosen = {word: atom for word, atom in functions().items() if not names or word in names}
    with tempfile.TemporaryDirectory() as folder:
        specs = Path(folder) / "specs"
        specs.mkdir()
        for word in chosen:
            text = f"dtypes: [float32, bfloat16]\nchain:\n- expr: {word}(x)\n"
            (specs / f"only_{word}.yaml").write_text(text)
        fusegen.build(specs, out=Path(folder) / "packages", backend="cpu", quiet=True)
        heads = ("float32 forward", "with gradient", "bfloat16 forward", "with gradient")
        lines = [
            f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, "
            f"torch {torch.__version__}, {torch.get_num_threads()} threads; "
            f"ms of {COUNT} numbers: fusegen/eager/torch.compile",
            f"{'':<12}" + "".join(f"{head:>20}" for head in heads),
        ]
        for word, atom in chosen.items():
            own = fusegen.load(f"only_{word}", Path(folder) / "packages").apply
            lines.append(measure(word, atom, own))
            print(lines[-1], flush=True)
    record.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
