"""What the GPU's loops decide about a kernel: what threads hold, and how they read a row.

The kernel says what is computed. What follows here from that is a matter of registers, caches and
exchanges among threads; what depends on the call's shape or on the device is chosen at the call
(templates/include/fusegen/row_plan.cuh).
"""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.kernel.stage import Stage


@dataclass(frozen=True)
class GpuForm:
    """The decisions about one kernel."""

    kernel: Kernel

    @property
    def live_columns(self) -> bool:
        """Whether a thread keeps the operands of its columns from row to row.

        What several of them take of the first-level cache is more than a row's own elements. More than 24
        bytes a column of a 16-bit type would not fit in a thread's registers, nor do these where an element
        holds much.
        """
        inputs = self.kernel.inputs
        return self._holds_little and 12 <= 2 * len(inputs.col) + 4 * len(inputs.saved_cols) <= 24

    @property
    def _holds_little(self) -> bool:
        """Whether an element leaves registers for what its column needs."""
        return self.kernel.live.most <= 4

    @property
    def singly(self) -> bool:
        """Whether threads may take one row and no other: rows share no state."""
        results = self.kernel.results
        return not (results.column_sums or results.totals or self.live_columns)

    @property
    def has_policy(self) -> bool:
        """Whether it reads tensors under a policy of the second-level cache."""
        kernel = self.kernel
        copies = kernel.form in ("rows", "along") or kernel.outer  # which takes no registers
        return bool(kernel.inputs.full) and (copies or self.loads_by_policy)

    @property
    def loads_by_policy(self) -> bool:
        """Whether its loads use the policy too.

        Kernels that sum columns don't: they have too few registers left to keep several loads in flight.
        """
        return not self.kernel.results.column_sums

    @property
    def live_sums(self) -> int:
        """How many sums of columns a thread may have in registers, where it has the room."""
        return len(self.kernel.results.col_sums) if self._holds_little else 0

    @property
    def reads_once(self) -> bool:
        """Whether a row is read once and its columns are not summed: it need not be held.

        Where channels are spread along it, a row that is held knows them by an addition.
        """
        summed = self.kernel.results.column_sums or self.kernel.inputs.spread
        return len(self.reading_stages) == 1 and not summed

    @property
    def staged(self) -> bool:
        """Whether a row that is too long for registers is best kept in shared memory."""
        return len(self.reading_stages) > 1 and self.kernel.live.recomputed

    @property
    def staged_items(self) -> int:
        """How many accesses of such a row a thread may have, so that its sums by channel stay in registers.

        0: any number of them, with the sums in shared memory.
        """
        results = self.kernel.results
        return 8 if 0 < len(results.run_sums) <= 2 and not results.col_sums else 0

    @property
    def reading_stages(self) -> tuple[Stage, ...]:
        """The stages that read a streamed row: a provisional maximum is found in the next one."""
        stages = self.kernel.stages
        return tuple(s for s in stages if (s.lines or s.outs) and not s.provisional)

    @property
    def joint_values(self) -> int:
        """How many values one exchange among a row's threads carries at most."""
        stages = self.kernel.stages
        joint = (len(s.reductions) + 1 for s in stages if s.shifted_by)
        return max([1, *joint, *(min(len(s.reductions), self.jointly) for s in stages)])

    @property
    def jointly(self) -> int:
        """How many sums or maxima one exchange takes; more of them would cost registers."""
        return 4
