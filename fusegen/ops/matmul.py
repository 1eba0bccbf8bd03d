"""What a chain may start from: products that torch computes, whose bias the kernel adds."""

from __future__ import annotations

import sympy as sp

from fusegen.ops.declare import Submodule, op
from fusegen.program import Kind


@op(
    "nn.functional.linear",
    source=True,
    kinds={"bias": Kind.COL},
    submodule=Submodule("nn.Linear", sized_by=("in_features", "out_features"), operands=("bias",)),
)
def linear(x: sp.Expr, bias: sp.Expr) -> sp.Expr:
    """x W^T + bias. torch computes x W^T, the kernel adds the bias. torch.nn.Linear."""
    return x + bias
