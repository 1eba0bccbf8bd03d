"""Running averages of a batch norm, as torch keeps them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


def batch_weight(norm: nn.Module) -> float:
    """Count a batch, and return its weight in the running averages.

    Args:
        norm: a batch norm of torch. Without momentum every batch has the same weight; if it does not count
            batches either, the weight is 0, as in torch.
    """
    batches: Any = norm.num_batches_tracked
    momentum: Any = norm.momentum
    if batches is not None:
        batches.add_(1)
    if momentum is not None:
        return float(momentum)
    return 0.0 if batches is None else 1.0 / float(batches)


class Average(NamedTuple):
    """A running average, and the statistic that updates it.

    Attributes:
        running: the average, [channels].
        statistic: the index of the batch's statistic among those that the forward saves.
        weight: that of the batch, from 0 to 1.
        unbiased: whether torch divides the statistic, a variance, by one less than the number of values.
    """

    running: Tensor
    statistic: int
    weight: float
    unbiased: bool = False


#: Where a call puts the statistics that averages follow, if anyone wants them.
_WANTED: ContextVar[list[tuple[Tensor, ...]] | None] = ContextVar("_WANTED", default=None)


class WithStatistics:
    """A package's `apply` of a batch norm that also returns the batch's mean and variance, [channels].

    Args:
        apply: the function.
    """

    def __init__(self, apply: Callable[..., Any]) -> None:
        self.apply = apply
        self.__name__ = "with_statistics"  # as the code of a graph calls it

    def __call__(self, *args: Any, **keywords: Any) -> tuple[Tensor, ...]:
        """Return the values of a call, and after them the mean and the variance."""
        found: list[tuple[Tensor, ...]] = []
        before = _WANTED.set(found)
        try:
            values = self.apply(*args, **keywords)
        finally:
            _WANTED.reset(before)
        (statistics,) = found
        return (*([values] if isinstance(values, Tensor) else values), *statistics)


def move(averages: Sequence[Average], statistics: Sequence[Tensor], values: int) -> None:
    """Move running averages towards a batch's statistics, each of so many values; an empty one moves none."""
    wanted = _WANTED.get()
    if wanted is not None:
        wanted.append(tuple(statistics[average.statistic] for average in averages))
    if not values:
        return
    for average in averages:
        factor = values / (values - 1) if average.unbiased else 1.0
        follow(average.running, statistics[average.statistic], average.weight, factor)


def follow(running: Tensor, statistic: Tensor, weight: float, factor: float = 1.0) -> None:
    """Move a running average towards a batch's statistic, in place, in one or two kernels.

    Args:
        running: [channels].
        statistic: the same of the batch, [channels], in the type that the kernels compute in.
        weight: that of the batch, from 0 to 1.
        factor: what the statistic is multiplied by.
    """
    with torch.no_grad():
        if factor != 1.0 or statistic.dtype != running.dtype:
            statistic = torch.mul(statistic, factor, out=torch.empty_like(running))
        running.lerp_(statistic, weight)
