"""What an element holds from one stage over its row to the next."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.lower.kernel.inputs import Inputs
from fusegen.lower.kernel.stage import Stage


@dataclass(frozen=True)
class LiveValues:
    """The inputs and values that are read again after a stage.

    Args:
        inputs: what an element is given.
        stages: what is computed, in order.
    """

    inputs: Inputs
    stages: tuple[Stage, ...]

    @property
    def between(self) -> tuple[tuple[int, int], ...]:
        """What is live before the first stage and after each but the last.

        As pairs: how many inputs, as they are stored, and how many values, as they are computed.
        """
        stored = [f.name for f in self.inputs.full]
        found = [(len(stored), 0)]
        for stage in self.stages[:-1]:
            later = self.stages[stage.index + 1 :]
            inputs = sum(1 for name in stored if any(name in s.full_reads for s in later))
            values = {
                name
                for s in self.stages[: stage.index + 1]
                for name in s.live
                if any(name in t.reads for t in later)
            }
            found.append((inputs, len(values)))
        return tuple(found)

    @property
    def most(self) -> int:
        """How many inputs and values are live at once at most."""
        return max(sum(pair) for pair in self.between)

    @property
    def any_computed(self) -> bool:
        """Whether anything but inputs is live from one stage to the next."""
        return any(computed for _, computed in self.between)

    @property
    def recomputed(self) -> bool:
        """Whether what the stages hand on is soon computed again, so that none of it need be kept."""
        calls = any(line.code.calls for s in self.stages[:-1] for line in s.lines)
        return not (self.inputs.rng or calls)

    @property
    def full_reads(self) -> frozenset[str]:
        """The full inputs that any stage reads."""
        return frozenset().union(*(stage.full_reads for stage in self.stages))

    def reads_to(self, stage: Stage) -> frozenset[str]:
        """The full inputs that a stage reads where what earlier ones kept is computed again."""
        return frozenset().union(*(s.full_reads for s in self.stages[: stage.index + 1]))

    def reads_in(self, stage: Stage) -> frozenset[str]:
        """The full inputs that a stage reads, as it is: after stages that are computed again, or alone."""
        return self.reads_to(stage) if self.recomputed else stage.full_reads
