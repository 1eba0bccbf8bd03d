"""Running averages of a batch norm, as torch keeps them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def batch_weight(norm: nn.Module) -> float:
    """Count a batch, and return the weight that it has in the running averages.

    Args:
        norm: a batch norm of torch; without momentum every batch counts the same.
    """
    batches, momentum = norm.num_batches_tracked, norm.momentum
    assert isinstance(batches, Tensor)
    batches.add_(1)
    return 1.0 / float(batches) if momentum is None else float(momentum)  # type: ignore[arg-type]


def follow(running: Tensor, weight: float, *terms: tuple[float, *tuple[Tensor, ...]]) -> None:
    """Move a running average towards a batch's statistic, in place: two or three kernels, where the formula
    as it stands would be six to nine.

    Args:
        running: [channels].
        weight: that of the batch, from 0 to 1.
        terms: what the statistic is the sum of: a number, and one or two tensors that it multiplies,
            [channels], in the type that the kernels compute in. The first has one.
    """
    with torch.no_grad():
        number, *factors = terms[0]
        statistic = factors[0] * number
        for number, *factors in terms[1:]:
            if len(factors) == 1:
                statistic.add_(factors[0], alpha=number)
            else:
                statistic.addcmul_(*factors, value=number)
        if running.dtype == statistic.dtype:
            running.lerp_(statistic, weight)
        else:  # in the wider type, and rounded once
            running.add_(statistic - running, alpha=weight)
