"""What a program is called with: tensors of random numbers, scales, ties and strides."""

from __future__ import annotations

import inspect
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.chain.segment import Segment
from random_programs.program import Program

#: What `ignore_index` is by default.
IGNORED = -100


@dataclass(frozen=True)
class Case:
    """One call of a program.

    Args:
        label: what is special about it.
        x: the activation, float64.
        operands: the tensors beside it, by name.
        numbers: the arguments, by name.
        training: the mode.
        seed: of dropout.
        strides: the seed of the tensors' strides; None where all are contiguous.
        exact: whether the numbers have few digits, so that ties are ties in every dtype.
        twice: whether second derivatives are compared.
    """

    label: str
    x: Tensor
    operands: dict[str, Tensor]
    numbers: dict[str, float]
    training: bool
    seed: int
    strides: int | None = None
    exact: bool = False
    twice: bool = False
    moving: tuple[str, ...] = field(default=())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, x first."""
        return {"x": self.x, **self.operands}


def cases(program: Program, chain: Chain) -> list[Case]:
    """Return the calls of a program, the plainest first."""
    rng = random.Random(program.seed)
    modes = (False, True) if chain.moded else (False,)
    found = []
    for training in modes:
        twice = program.document.get("order", 2) >= 2
        given = {"training": training}
        found.append(_case(program, chain, "plain", program.shape, twice=twice, **given))
        found.append(
            _case(program, chain, "strided", program.other, strides=rng.randrange(10**6), **given)
        )
        found.append(_case(program, chain, "ties", program.shape, exact=True, **given))
        scale = rng.choice((1e-6, 1e-3, 30.0, 1e3, 1e6, 1e14))
        found.append(_case(program, chain, f"scale {scale:g}", program.shape, scale=scale, **given))
    return [case for case in found if case is not None]


def _case(
    program: Program,
    chain: Chain,
    label: str,
    shape: tuple[int, ...],
    *,
    training: bool,
    scale: float = 1.0,
    strides: int | None = None,
    exact: bool = False,
    twice: bool = False,
) -> Case | None:
    generator = torch.Generator().manual_seed(program.seed + len(label))
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    if training and x.numel() // max(x.shape[1 if x.dim() > 1 else -1], 1) <= 2:
        return None  # the statistics of two rows: nothing is left of a gradient
    if exact:
        x = (2 * x).round() / 2 + 0.0  # no -0, which is as large as 0
    operands = _operands(program, chain, x, generator, exact=exact)
    moving = ("x", *(o.name for o in chain.operands if o.differentiable))
    return Case(
        label + (", training" if training else ""),
        x,
        operands,
        dict(program.numbers),
        training,
        program.seed % 1000,
        strides,
        exact,
        twice,
        moving,
    )


def _operands(
    program: Program, chain: Chain, x: Tensor, generator: torch.Generator, *, exact: bool
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for segment, reached in zip(chain.segments, chain.reached(x.shape), strict=True):
        for operand in segment.operands:
            if operand.handed or operand.name in found:
                continue
            shape = operand.shape(reached, segment.layout)
            if operand.integer:
                count = classes(segment, reached, operand.name)
                drawn = torch.randint(count, shape, generator=generator)
                ignored = torch.rand(shape, generator=generator) < 0.15
                number = _ignored(program, operand.name)
                found[operand.name] = drawn if number is None else drawn.where(~ignored, number)
                continue
            positive = operand.name in program.positive or operand.name.endswith("running_var")
            drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
            if positive:
                drawn = drawn.abs() + 0.5
            found[operand.name] = (2 * drawn).round() / 2 + 0.0 if exact else drawn
    return found


def classes(segment: Segment, reached: Sequence[int], target: str) -> int:
    """Return how many classes a loss has, of which an earlier step of its segment may have left one.

    Args:
        segment: the segment of the loss.
        reached: the shape of what reaches it.
        target: the operand that holds the classes.
    """
    before = itertools.takewhile(lambda step: target not in step.tensors, segment.steps)
    if any(step.op is not None and "keepdim" in step.attributes for step in before):
        return 1
    activation = segment.layout.half(reached)
    return max(math.prod(activation[dim] for dim in segment.layout.columns), 1)


def _ignored(program: Program, target: str) -> int | None:
    """Return the class that a loss ignores, or None where no loss takes these classes."""
    for step in program.document["chain"]:
        given = next(iter(step.values())) if isinstance(step, dict) else None
        if isinstance(given, dict) and given.get("target") == target:
            return int(given.get("ignore_index", IGNORED))
    return None


def restrided(tensor: Tensor, rng: random.Random, *, reordered: bool = True) -> Tensor:
    """Return an equal tensor that lies in memory in another way, and `reordered` in another order too."""
    ways = ("contiguous", "wide", "sliced", "unaligned")
    way = rng.choice((*ways, "permuted", "channels_last") if reordered else ways)
    if tensor.dim() == 0 or tensor.numel() == 0:
        return tensor.clone()
    for dim in range(tensor.dim()):  # what is the same along a dim may be expanded along it
        first = tensor.narrow(dim, 0, 1)
        if reordered and tensor.shape[dim] > 1 and bool((tensor == first).all()):
            return first.expand(tensor.shape)
    if way == "permuted":
        order = list(range(tensor.dim()))
        rng.shuffle(order)
        inverse = [order.index(d) for d in range(tensor.dim())]
        return tensor.permute(order).contiguous().permute(inverse)
    if way == "channels_last" and tensor.dim() >= 3:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)
    if way == "wide":
        dim = rng.randrange(tensor.dim())
        return torch.cat([tensor, tensor, tensor], dim).narrow(
            dim, tensor.shape[dim], tensor.shape[dim]
        )
    if way == "sliced":
        return torch.stack([tensor, tensor], -1)[..., 0]
    if way == "unaligned":
        return torch.cat([tensor.new_zeros(1), tensor.reshape(-1)])[1:].view(tensor.shape)
    return tensor.clone(memory_format=torch.contiguous_format)


def apply(package: ModuleType, case: Case, tensors: dict[str, Tensor]) -> Tensor:
    """Call a package."""
    known = inspect.signature(package.apply).parameters
    given: dict[str, Any] = {
        **tensors,
        **case.numbers,
        "training": case.training,
        "seed": case.seed,
    }
    result: Tensor = package.apply(**{name: given[name] for name in known if name in given})
    return result
