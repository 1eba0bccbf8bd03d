"""What a generated package needs when it runs: torch and this folder, nothing else of fusegen."""

from __future__ import annotations

from fusegen.runtime.averages import batch_weight, follow
from fusegen.runtime.chain import Chain, Mode, Operand
from fusegen.runtime.loading import made_by
from fusegen.runtime.passes import Pass

__all__ = ["Chain", "Mode", "Operand", "Pass", "batch_weight", "follow", "made_by"]
