"""The names in a region's spec: by number, so that regions that compute the same have the same spec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import fx

from fusegen.models.calls import Call
from fusegen.models.functions import PARTS
from fusegen.models.operands import Held
from fusegen.models.spec_text import Step

__all__ = ["Naming"]


class Naming:
    """Chooses the names of a spec by number: operands t1, t2, …, steps add_1, add_2, …"""

    def __init__(self) -> None:
        self._operands = 0
        self._steps: Counter[str] = Counter()

    def operand(self, held: Held) -> str:
        """Return the name of a new operand."""
        del held
        self._operands += 1
        return f"t{self._operands}"

    def step(self, node: fx.Node, call: Call) -> str:
        """Return the name of a new step."""
        del node
        self._steps[call.name] += 1
        return f"{call.name}_{self._steps[call.name]}"

    def part(self, node: fx.Node, place: int) -> str:
        """Return the name of a part that the chain starts from."""
        del node
        return PARTS[place]

    def detached(self, label: str) -> str:
        """Return the name of the step that detaches the value of another one."""
        return f"{label}_detached"

    def tidied(self, steps: Sequence[Step], outputs: Sequence[str]) -> Sequence[Step]:
        """Return the steps as the spec has them."""
        del outputs
        return steps
