"""torch's own samples of each op of the vocabulary: value, gradient and second derivative, against eager.

Each sample is captured by torch.compile, as a model's graph is, and becomes a spec, even if it is a single
op. The packages of all specs are then built together, and each sample runs with its own.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import types
import unittest
import unittest.mock
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from random_programs.build import compile_together, write_package
from torch import Tensor, fx
from torch.utils import _pytree

from fusegen.base.errors import UserError
from fusegen.models.backend import FusegenBackend
from fusegen.models.cost import Cost
from fusegen.models.fusion_report import Report
from fusegen.models.plan import plan_of
from fusegen.ops import Op, registry

#: What is compared by default. The 16-bit ones are others' float32, loaded and stored in another way.
DTYPES = (torch.float64, torch.float32)
NARROW = (torch.bfloat16, torch.float16)
#: How far a result may be from eager's of float64: in eps of the largest number of the sample's results, or
#: of 1. What cancels, as a gradient of a norm of two elements, is as exact as what it is the difference of.
UNITS = {torch.float64: 2.0**12, torch.float32: 2.0**7, torch.bfloat16: 2.0, torch.float16: 2.0}
#: How many times eager's own error a result may have.
TIMES = 8
#: Samples that differ from call to call.
RANDOM = ("dropout", "alpha_dropout")

#: Results of torch's own that are no truth, by op: which, and why.
REASONS = {
    "hardsigmoid": ("gradient", "torch's derivative has 1/6 rounded to float32, in float64 too"),
}


@dataclass
class Found:
    """What became of the samples of an op with a dtype.

    Args:
        op: its name here.
        torch: its name in torch's list.
        dtype: the dtype.
        samples: how many there are.
        fused: how many ran with a package.
        left: why the others did not, and how often.
        results: how many tensors were compared.
        worst: the largest error, in eps of the largest number of its sample.
        wrong: what is wrong: the sample and the result.
    """

    op: str
    torch: str
    dtype: str
    samples: int = 0
    fused: int = 0
    left: Counter[str] = field(default_factory=Counter)
    results: int = 0
    worst: float = 0.0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Sample:
    """A call of torch's list, as a function of its tensors, and whether torch has its second derivative."""

    function: Callable[..., Tensor]
    tensors: list[Tensor]
    twice: bool
    text: str


def run(
    folder: Path, count: int, dtypes: Sequence[torch.dtype], say: Callable[[str], None]
) -> list[Found]:
    """Build what the samples need, and return what became of them.

    Args:
        folder: an empty folder.
        count: how many samples of an op at most.
        dtypes: their dtypes.
        say: where to say how far it is.
    """
    warnings.filterwarnings("ignore")
    os.environ["FUSEGEN_NATIVE"] = "1"
    with unittest.mock.patch("fusegen.models.plan._not_worth", _always_worth):
        texts: dict[str, str] = {}
        for _, _, _, samples in _samples(count, dtypes):
            for sample in samples:
                texts |= _specs_of(sample)
        say(f"{len(texts)} specs")
        refused = _build(folder, texts, dtypes)
        say(f"{len(texts) - len(refused)} packages")
        found = []
        for op, name, dtype, samples in _samples(count, dtypes):
            row = Found(op.name, name, _name(dtype))
            for sample in samples:
                try:
                    _compare(row, sample, dtype, folder)
                except Exception as error:
                    row.wrong.append(f"{sample.text}: {type(error).__name__}: {error}"[:500])
            found.append(row)
            say(
                f"{row.op:16} {row.torch:32} {row.dtype} {row.fused} of {row.samples} fused, "
                f"{row.results} results, worst {row.worst:.3g}, {len(row.wrong)} wrong"
            )
            for wrong in row.wrong:
                say(f"  {wrong}")
    return found


def _always_worth(cost: Cost, *, everything: bool) -> str | None:
    """Return that a region is worth a package, even a single op."""
    del everything
    return None if cost.launches else ""


def op_infos() -> list[tuple[Op, Any]]:
    """Return the entries of torch's list that an op equals, by name, by alias or as the same function."""
    # torch's test helpers import it for a base class that the list has no use for.
    sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=unittest.TestCase))  # type: ignore[arg-type]
    from torch.testing._internal.common_methods_invocations import op_db

    found = []
    for op in registry().values():
        names = {op.torch, op.torch.removeprefix("nn.functional.")} - {""}
        function = functools.reduce(getattr, op.torch.split("."), torch) if op.torch else None
        for info in op_db:
            same = function is not None and info.op is function
            if same or names & {info.name, *(alias.name for alias in info.aliases)}:
                found.append((op, info))
    return found


def _samples(
    count: int, dtypes: Sequence[torch.dtype]
) -> Iterator[tuple[Op, str, torch.dtype, list[Sample]]]:
    """Yield the samples of each entry of torch's list with each dtype."""
    for op, info in op_infos():
        for dtype in dtypes:
            if dtype not in info.dtypes:
                continue
            torch.manual_seed(0)
            differentiable = info.supports_autograd
            found = info.sample_inputs("cpu", dtype, requires_grad=differentiable)
            samples = [_sample(info, s) for s in found]
            name = f"{info.name} {info.variant_test_name}".strip()
            yield op, name, dtype, samples[:: max(1, math.ceil(len(samples) / count))]


def _sample(info: Any, given: Any) -> Sample:
    leaves, shape = _pytree.tree_flatten((given.input, given.args, given.kwargs))
    places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    constants = [None if n in places else leaf for n, leaf in enumerate(leaves)]

    def call(*tensors: Tensor) -> Tensor:
        filled = list(constants)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        first, others, named = _pytree.tree_unflatten(filled, shape)
        result = info.op(first, *others, **named)
        return result if isinstance(result, Tensor) else result[0]

    said = [list(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    tensors = [leaves[n] for n in places]
    return Sample(call, tensors, info.supports_gradgrad, f"{said} {list(given.kwargs)}")


class _Collect:
    """A back end that notes the specs of graphs, and runs them as they are."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def __call__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        forward = module.forward
        plan = plan_of(module.graph, inputs, 2, Report(), everything=True)
        self.texts |= {spec.name: spec.text for _, spec in plan.specs}
        return forward


def _specs_of(sample: Sample) -> dict[str, str]:
    collect = _Collect()
    torch._dynamo.reset()
    torch.compile(sample.function, backend=collect, dynamic=False)(*sample.tensors)
    return collect.texts


def _build(folder: Path, texts: dict[str, str], dtypes: Sequence[torch.dtype]) -> set[str]:
    """Build the packages of specs, and return the names of those that are refused."""
    refused = set()
    (folder / "specs").mkdir(parents=True)
    for name, text in texts.items():
        path = folder / "specs" / f"{name}.yaml"
        path.write_text(text)
        try:
            write_package(path, folder / "generated")
        except UserError:
            refused.add(name)
    good = [name for name in texts if name not in refused]
    every = [_name(dtype) for dtype in dtypes]
    own = {name: [d for d in every if d in texts[name]] or every for name in good}
    compile_together(good, folder / "generated", together=24, dtypes=own)
    return refused


def _name(dtype: torch.dtype) -> str:
    return str(dtype)[6:]


def _compare(row: Found, sample: Sample, dtype: torch.dtype, folder: Path) -> None:
    """Run a sample with its packages and by torch, and note what differs."""
    row.samples += 1
    backend = FusegenBackend(folder, order=2, everything=True, build=False)
    torch._dynamo.reset()
    fused = torch.compile(sample.function, backend=backend, dynamic=False)
    fused(*sample.tensors)
    if not backend.report.fused:
        reasons = [r.reason for r in backend.report.regions] or [w for _, w in backend.report.left]
        row.left[(reasons or ["nothing of it is a graph"])[0][:100]] += 1
        return
    row.fused += 1
    if row.op in RANDOM and _random(sample):
        row.left["not compared: it is random"] += 1
        return
    got = _derivatives(fused, sample, dtype)
    eager = _derivatives(sample.function, sample, dtype)
    truth = _derivatives(sample.function, sample, torch.float64)
    eps = torch.finfo(dtype).eps
    size = max([1.0, *(_largest(t) for t in truth.values())])
    untrue, reason = REASONS.get(row.op, ("none", ""))
    for name, wanted in truth.items():
        if name.startswith(untrue):
            row.left[f"{untrue} not compared: {reason}"] += 1
            continue
        if name not in got or got[name].shape != wanted.shape:
            row.wrong.append(f"{sample.text}: {name}: {got.get(name)}, not of {wanted.shape}")
            continue
        row.results += 1
        off, own = (_off(t[name].double(), wanted.double()) for t in (got, eager))
        bound = UNITS[dtype] * eps * size + TIMES * own
        row.worst = max(row.worst, off / (eps * size))
        if dtype is torch.float64 and not off <= bound:
            # Eager is the truth here, and has an error of its own.
            moved = _derivatives(sample.function, _moved(sample), dtype)
            bound += TIMES * _off(moved[name], wanted)
        if not off <= bound:
            row.wrong.append(f"{sample.text}: {name}: off by {off:.3g}, at most {bound:.3g}")


def _largest(values: Tensor) -> float:
    finite = values[values.isfinite()].double().abs()
    return float(finite.max()) if len(finite) else 0.0


def _random(sample: Sample) -> bool:
    one, other = (sample.function(*sample.tensors) for _ in range(2))
    return not torch.equal(one, other)


def _moved(sample: Sample) -> Sample:
    """Return a sample whose numbers are one eps larger or smaller: results may be off by as much."""

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        generator = torch.Generator().manual_seed(0)
        signs = torch.rand(tensor.shape, generator=generator).sub(0.5).sign().to(tensor.dtype)
        by = 1 + signs * torch.finfo(tensor.dtype).eps
        return (tensor.detach() * by).requires_grad_(tensor.requires_grad)

    return replace(sample, tensors=[moved(t) for t in sample.tensors])


def _off(got: Tensor, truth: Tensor) -> float:
    """Return the largest difference; infinite if one is not finite and the other is."""
    same = (got == truth) | (got.isnan() & truth.isnan())
    error = torch.where(same, 0.0, (got - truth).abs().nan_to_num(math.inf, math.inf, math.inf))
    return float(error.max()) if error.numel() else 0.0


def _derivatives(
    function: Callable[..., Tensor], sample: Sample, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return a function's value, gradients, and the gradients of a sum of these."""
    leaves = [
        t.detach().to(dtype).requires_grad_(t.requires_grad) if t.is_floating_point() else t
        for t in sample.tensors
    ]
    value = function(*leaves)
    found = {"value": value.detach()}
    moving = [t for t in leaves if t.requires_grad]
    if not (moving and value.requires_grad):
        return found
    weights = _weights(value).requires_grad_()
    first = torch.autograd.grad(value, moving, weights, create_graph=True, allow_unused=True)
    found |= {f"gradient {n}": g.detach() for n, g in enumerate(first) if g is not None}
    live = [g for g in first if g is not None and g.requires_grad]
    if not (live and sample.twice):
        return found
    twice = torch.autograd.grad(
        live,
        [*moving, weights],
        [_weights(g, 1 + n) for n, g in enumerate(live)],
        allow_unused=True,
    )
    # None is a derivative that is 0 everywhere.
    for n, (g, leaf) in enumerate(zip(twice, [*moving, weights], strict=True)):
        found[f"second {n}"] = torch.zeros_like(leaf) if g is None else g.detach()
    return found


def _weights(like: Tensor, number: int = 0) -> Tensor:
    """Return numbers that differ between elements and between tensors, and are the same in all dtypes."""
    numbers = torch.arange(like.numel(), dtype=torch.float64)
    return (
        torch.cos(numbers * (1.7 + number) + 0.3)
        .to(torch.bfloat16)
        .to(like.dtype)
        .reshape(like.shape)
    )
