"""What torch needs to know of an operator beyond its kernels: the shapes of its outputs, and its derivative.

With these the operators stand in graphs of torch.compile, torch.export and AOTInductor, and pass
`torch.library.opcheck`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusegen.runtime.derivative import mark_statistics, pull, remember
from fusegen.runtime.memory import keeps_order
from fusegen.runtime.passes import BoundPass
from fusegen.runtime.sharding import know_shardings


def register(pass_: BoundPass) -> None:
    """Register the fake kernel and the autograd of a pass's operator."""
    name = pass_.name

    def fake(*args: Any) -> Any:
        x: Tensor = args[0]
        half = pass_.rows_shape(x)
        lies = keeps_order(x, half, pass_.order_in_memory, pass_.columns)

        def result(number: int, kind: str) -> Tensor:
            shape = pass_.shape(number, args)
            if lies and kind in {"full", "half"}:
                return torch.empty_like(x if shape == x.shape else x[tuple(map(slice, half))])
            return x.new_empty(shape)

        outputs = [result(number, kind) for number, kind in enumerate(pass_.output_kinds)]
        if pass_.order == 0:
            groups = args[-1] if pass_.grouped else 1
            outputs += [_statistic(x, pass_, kind, groups) for kind in pass_.statistic_kinds]
        return outputs[0] if pass_.returned == 1 else tuple(outputs)

    def setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        remember(ctx, pass_, inputs, output)
        mark_statistics(ctx, pass_, output)

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return tuple(pull(ctx, pass_, cotangents))

    know_shardings(pass_)
    torch.library.register_fake(name, fake)
    torch.library.register_autograd(name, backward, setup_context=setup_context)


def _statistic(x: Tensor, pass_: BoundPass, kind: str, groups: int) -> Tensor:
    """Return a statistic of each row, of each column or of all, in the type that the kernels compute in."""
    first, last = (dim % x.dim() for dim in pass_.columns) if x.dim() else (0, -1)
    count = groups if kind == "row" else 1
    for dim, size in enumerate(pass_.rows_shape(x)):
        if kind != "scalar" and (first <= dim <= last) == (kind == "col"):
            count *= size
    return x.new_empty((count,), dtype=torch.promote_types(x.dtype, torch.float32))
