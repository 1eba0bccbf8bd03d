"""`fusegen tune`: measures candidates for the launch parameters on the present GPU and saves the best.

It starts from the model's choice, varies each parameter alone, and then combines those that are faster. Every
candidate is a package of its own, built in a temporary folder. So all are measured in one process,
interleaved.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fusegen.base.errors import UserError
from fusegen.chain import Chain
from fusegen.runtime.loading import load_package
from fusegen.toolchain import builder, pipeline, tuned
from fusegen.tools.bench.machine import describe
from fusegen.tools.bench.timing import Prepare, clock, medians
from fusegen.tools.check.random_operands import random_operands

#: The values to try for each parameter.
CANDIDATES = {
    "access": (16, 32),
    "rows_in_flight": (1, 2, 4),
    "waves": (1, 2, 4, 8, 1024),
    "batches": (1, 4),
    "tiles": (16, 32, 128),
    "block": (128, 512),
    "elements": (8, 32),
    "elements_narrow": (8, 32),
    "threads": (256,),
}
#: A candidate must be faster by this factor; less is noise.
GAIN = 0.98

Parameters = dict[str, int]


@dataclass(frozen=True)
class Case:
    """The shape, dtype and device to measure candidates on."""

    rows: int
    cols: int
    dtype: torch.dtype
    device: str = "cuda"


def tune(spec: Path, case: Case, say: Callable[[str], None]) -> dict[str, Parameters]:
    """Measure candidates for a spec, write what was found beside it, and return it.

    Args:
        spec: the spec file.
        case: the shape and dtype to measure on.
        say: receives the progress.

    Raises:
        UserError: if the chain returns several values, or has no gradient.
    """
    read = pipeline.derive(spec, "`fusegen tune`").spec
    if read.outputs:
        raise UserError(f"{spec}: it returns several values; only chains of one are tuned")
    if not read.order:
        raise UserError(f"{spec}: it has order: 0, and so no backward to tune")
    if read.steps[-1].indexes:
        raise UserError(f"{spec}: it returns numbers of columns, which have no backward to tune")
    names = {p: {n for n, _, _ in launch} for p, launch in _constants(spec).items()}
    singles: list[Parameters] = [{}]
    singles += [
        {name: value}
        for name, values in CANDIDATES.items()
        for value in values
        if any(name in known for known in names.values())
    ]
    first = _measure(spec, singles, case)
    found: dict[str, Parameters] = {}
    for place, passed in enumerate(("forward", "backward")):
        base = first[0][place]
        best: dict[str, tuple[float, int]] = {}
        for candidate, times in zip(singles[1:], first[1:], strict=True):
            ((name, value),) = candidate.items()
            if name in names[passed] and times[place] < GAIN * best.get(name, (base, 0))[0]:
                best[name] = (times[place], value)
        found[passed] = {name: value for name, (_, value) in best.items()}
        say(f"{passed}: {base:.4f} ms; gains alone: {found[passed] or 'none'}")
    together = _measure(spec, [{}, found], case)
    for place, passed in enumerate(("forward", "backward")):
        if together[1][place] >= GAIN * together[0][place]:
            found[passed] = {}
        say(f"{passed}: {together[0][place]:.4f} -> {together[1][place]:.4f} ms {found[passed]}")
    measured = {
        **{k: v for k, v in describe(case.device).items() if v is not None},
        "shape": f"{case.rows}x{case.cols}",
        "dtype": str(case.dtype).removeprefix("torch."),
    }
    tuned.write(spec, {k: v for k, v in found.items() if v}, measured)
    return found


def _constants(spec: Path) -> dict[str, tuple[tuple[str, int, str], ...]]:
    from fusegen.lower.kernel.launch import choose_launch

    found: dict[str, tuple[tuple[str, int, str], ...]] = {}
    for segment in pipeline.derive(spec).segments:
        for passed, kernel in zip(("forward", "backward"), segment.modes[0].kernels, strict=False):
            found[passed] = (*found.get(passed, ()), *choose_launch(kernel).constants)
    return found


def _measure(spec: Path, candidates: list[Any], case: Case) -> list[tuple[float, float]]:
    """Return the forward's and the backward's milliseconds of each candidate."""
    chain = pipeline.derive(spec)
    with tempfile.TemporaryDirectory() as folder:
        specs, out = Path(folder) / "specs", Path(folder) / "generated"
        specs.mkdir()
        paths = []
        for number, candidate in enumerate(candidates):
            path = specs / f"{spec.stem}_{number}.yaml"
            shutil.copy(spec, path)
            by_pass = candidate
            if not any(isinstance(v, dict) for v in candidate.values()):
                by_pass = dict.fromkeys(("forward", "backward"), candidate)
            tuned.write(path, by_pass, {})
            paths.append(path)
        builder.build(paths, out=out, backend="cuda" if case.device == "cuda" else "cpu")
        variants: dict[str, Prepare] = {}
        for path in paths:
            variants |= dict(_calls(chain, load_package(path.stem, out), path.stem, case))
        times = medians(variants, clock(case.device), 15)
        return [(times[f"{p.stem} forward"], times[f"{p.stem} backward"]) for p in paths]


def _calls(chain: Chain, package: Any, name: str, case: Case) -> Iterator[tuple[str, Prepare]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(case.rows, case.cols, device=case.device, dtype=case.dtype)
    drawn = {"x": x, **random_operands(chain, x, generator)}
    moving = {"x", *(o.name for o in chain.operands if o.differentiable)}
    given = {name: t.detach().requires_grad_(name in moving) for name, t in drawn.items()}
    leaves = [t for t in given.values() if t.requires_grad]
    cotangent = torch.randn_like(x)
    options: dict[str, Any] = {
        a.name: a.default if a.default is not None else 1.5
        for a in chain.spec.arguments
        if a.name in chain.attributes
    }
    if chain.moded:
        options["training"] = True

    def forward() -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                return package.apply(**given, **options)

        return call

    def backward() -> Callable[[], object]:
        value = package.apply(**given, **options)
        return lambda: torch.autograd.grad(value, leaves, cotangent)

    yield f"{name} forward", forward
    yield f"{name} backward", backward
