"""What an element keeps from one stage to the next."""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.lower.kernel.inputs import Inputs
from fusegen.lower.kernel.stage import Stage


@dataclass(frozen=True)
class LiveValues:
    """The inputs and values that are read again after a stage.

    Args:
        inputs: the kernel's inputs.
        stages: its stages, in order.
    """

    inputs: Inputs
    stages: tuple[Stage, ...]

    @property
    def between(self) -> tuple[tuple[int, int], ...]:
        """How much is live before the first stage, and after each stage but the last.

        Each pair counts the inputs, in the stored type, and the values, in the compute type.
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
        """The largest number of inputs and values that are live at once."""
        return max(sum(pair) for pair in self.between)

    @property
    def any_computed(self) -> bool:
        """Whether computed values, and not only inputs, are live between stages."""
        return any(computed for _, computed in self.between)

    @property
    def recomputed(self) -> bool:
        """Whether the values between stages are so cheap to recompute that none need be kept."""
        calls = any(line.code.calls for s in self.stages[:-1] for line in s.lines)
        return not (self.inputs.rng or calls)

    def reads_to(self, stage: Stage) -> frozenset[str]:
        """The full inputs that a stage reads if it recomputes the values of earlier stages."""
        return frozenset().union(*(s.full_reads for s in self.stages[: stage.index + 1]))

    def reads_in(self, stage: Stage) -> frozenset[str]:
        """The full inputs that a stage actually reads, with or without recomputing."""
        return self.reads_to(stage) if self.recomputed else stage.full_reads
