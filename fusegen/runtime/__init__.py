"""Runtime: what a generated package needs to run. It imports torch, and of fusegen only `base`."""

from __future__ import annotations

from fusegen.runtime.activation import Activation
from fusegen.runtime.averages import Average, batch_weight
from fusegen.runtime.chain import Chain, Mode
from fusegen.runtime.declared_operator import Operator
from fusegen.runtime.fused_module import FusedModule, refuse_proxy
from fusegen.runtime.loading import made_by
from fusegen.runtime.operand_shapes import Operand

__all__ = [
    "Activation",
    "Average",
    "Chain",
    "FusedModule",
    "Mode",
    "Operand",
    "Operator",
    "batch_weight",
    "made_by",
    "refuse_proxy",
]
