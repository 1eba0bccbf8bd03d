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
