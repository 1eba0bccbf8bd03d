"""What torch needs beyond an operator's kernels: the shapes of its outputs, and its derivative.

With these the operators work in graphs of torch.compile, torch.export and AOTInductor, and pass
`torch.library.opcheck`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fusegen.runtime.derivative import mark_outputs, pull, remember
from fusegen.runtime.memory import keeps_strides
from fusegen.runtime.operators import BoundOperator, computed_in
from fusegen.runtime.sharding import know_shardings


def register(operator: BoundOperator) -> None:
    """Register the fake kernel and the autograd of an operator."""
    name = operator.name

    def fake(*args: Any) -> Any:
        x: Tensor = args[0]
        half = operator.rows_shape(x)
        lies = keeps_strides(
            x,
            half,
            operator.memory_format,
            operator.columns,
            operator.halved,
            operator.partition,
        )

        def result(number: int, kind: object) -> Tensor:
            shape = operator.shape(number, args)
            if lies and kind in {"full", "half"}:
                return torch.empty_like(x if shape == x.shape else x[tuple(map(slice, half))])
            return x.new_empty(shape, dtype=operator.dtype(number, x.dtype))

        outputs = [result(number, kind) for number, kind in enumerate(operator.output_kinds)]
        if operator.order == 0:
            groups = args[-1] if operator.grouped else 1
            outputs += [_statistic(x, operator, kind, groups) for kind in operator.statistic_kinds]
        return outputs[0] if operator.returned == 1 else tuple(outputs)

    def setup_context(ctx: Any, inputs: Sequence[Any], output: Any) -> None:
        remember(ctx, operator, inputs, output)
        mark_outputs(ctx, operator, output)

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return tuple(pull(ctx, operator, cotangents))

    know_shardings(operator)
    torch.library.register_fake(name, fake)
    torch.library.register_autograd(name, backward, setup_context=setup_context)


def _statistic(x: Tensor, operator: BoundOperator, kind: str, groups: int) -> Tensor:
    """Return a statistic per row, per column or of everything, in the dtype that the kernels compute in."""
    first, last = (dim % x.dim() for dim in operator.columns) if x.dim() else (0, -1)
    count = groups if kind == "row" else 1
    for dim, size in enumerate(operator.rows_shape(x)):
        if kind != "scalar" and (first <= dim <= last) == (kind == "col"):
            count *= size
    return x.new_empty((count,), dtype=computed_in(x.dtype))
