"""Decides how the GPU's loops run a kernel: what threads keep, and how they read a row.

The kernel itself says what is computed. These decisions concern registers, caches and exchanges among
threads. Decisions that depend on the call's shape or on the device are made at the call
(templates/include/fusegen/choose_rows.cuh).
"""

from __future__ import annotations

from dataclasses import dataclass

from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.kernel.stage import Stage

#: What the loops of each form go over.
_SERVES = {
    "Flat": "all elements as one long row",
    "Pointwise": "each element by itself, down the columns",
    "Columns": "each column by itself, without the activation",
    "Rows": "each row as a whole, in registers, in shared memory or streamed",
}
#: The same of the forms for columns that are not adjacent in memory.
_APART = {
    "Apart": "neighbouring rows side by side",
    "Outer": "outer reductions",
    "Stagewise": "a stage at a time over the whole tensor",
}


@dataclass(frozen=True)
class GpuForm:
    """The decisions for one kernel."""

    kernel: Kernel

    @property
    def form(self) -> str:
        """The struct that runs the kernel where a row's columns are adjacent in memory."""
        return {"along": "Rows"}.get(self.kernel.form, self.kernel.form.capitalize())

    @property
    def serves(self) -> str:
        """What the form does, in words, and that for columns which are not adjacent in memory."""
        apart = f"; where columns lie apart, {_APART[self.form_apart]}" if self.form_apart else ""
        return _SERVES[self.form] + apart

    @property
    def form_apart(self) -> str:
        """The struct that runs it where a row's columns are not adjacent in memory; empty if none does."""
        if not self.kernel.outer:
            return ""
        if self.kernel.interleaved:
            return "Stagewise"
        return "Apart" if self.form == "Pointwise" else "Outer"

    @property
    def forms(self) -> tuple[str, ...]:
        """The headers of its forms, in templates/include/fusegen/forms/gpu_*.cuh."""
        return (self.form.lower(), *((self.form_apart.lower(),) if self.form_apart else ()))

    @property
    def facts(self) -> tuple[tuple[str, str, str], ...]:
        """The decisions that forms/launch.h does not take for granted: type, name and value of each."""
        kernel = self.kernel
        along_rows = kernel.form in ("rows", "along")
        booleans = {"by_policy": self.has_policy and self.loads_by_policy}
        numbers: dict[str, tuple[int, int]] = {}
        if along_rows:
            booleans |= {
                "rows_apart": self.rows_apart,
                "live_columns": self.live_columns,
                "beside": bool(kernel.live.any_computed or kernel.inputs.spread),
                "recomputed": kernel.live.recomputed,
                "reads_once": self.reads_once,
                "reduces": kernel.reduces,
                "staged": self.staged,
            }
            numbers |= {"sums": (self.live_sums, 0), "staged_items": (self.staged_items, 0)}
        return (
            *(("bool", name, "true") for name, holds in booleans.items() if holds),
            *(("int", name, str(n)) for name, (n, usual) in numbers.items() if n != usual),
        )

    @property
    def between(self) -> tuple[str, ...]:
        """How many inputs and values are live between stages, as items of forms/launch.h."""
        if self.kernel.form not in ("rows", "along") and not self.kernel.outer:
            return ()
        return tuple(f"Between<{s}, {c}>" for s, c in self.kernel.live.between)

    @property
    def live_columns(self) -> bool:
        """Whether a thread keeps its columns' operands in registers from row to row.

        Several operands occupy more of the L1 cache than a row's own elements do. More than 24 bytes per
        column of a 16-bit type would not fit into a thread's registers. Even these do not fit if an element
        keeps many values.
        """
        inputs = self.kernel.inputs
        wide = sum(f.access.stored == "computed" for f in inputs.col)
        column_bytes = 2 * (len(inputs.col) + wide)
        return self._holds_little and 12 <= column_bytes <= 24

    @property
    def _holds_little(self) -> bool:
        """Whether an element leaves enough registers for its column's operands and sums."""
        return self.kernel.live.most <= 4

    @property
    def rows_apart(self) -> bool:
        """Whether threads may take just one row: rows share no state."""
        results = self.kernel.results
        return not (results.column_sums or results.totals or self.live_columns)

    @property
    def has_policy(self) -> bool:
        """Whether the kernel reads tensors with an L2 cache policy."""
        kernel = self.kernel
        # Asynchronous copies take no registers.
        copies = kernel.form in ("rows", "along") or kernel.outer
        return bool(kernel.inputs.full) and (copies or self.loads_by_policy)

    @property
    def loads_by_policy(self) -> bool:
        """Whether its loads use the policy too.

        Kernels that sum columns don't: they have too few registers left to keep several loads in flight.
        """
        return not self.kernel.results.column_sums

    @property
    def live_sums(self) -> int:
        """How many column sums a thread may keep in registers, if it has enough of them."""
        return len(self.kernel.results.col_sums) if self._holds_little else 0

    @property
    def reads_once(self) -> bool:
        """Whether a single stage reads the row, and no columns are summed: then the row need not be kept.

        If channel operands are spread along a row, it is kept: a resident row finds channels by an addition.
        """
        summed = self.kernel.results.column_sums or self.kernel.inputs.spread
        return len(self.reading_stages) == 1 and not summed

    @property
    def staged(self) -> bool:
        """Whether a row that is too long for registers is best kept in shared memory."""
        return len(self.reading_stages) > 1 and self.kernel.live.recomputed

    @property
    def staged_items(self) -> int:
        """The most accesses per thread of a staged row, so that its sums by channel stay in registers.

        0 allows any number, with the sums in shared memory.
        """
        results = self.kernel.results
        return 8 if 0 < len(results.run_sums) <= 2 and not results.col_sums else 0

    @property
    def reading_stages(self) -> tuple[Stage, ...]:
        """The stages that read a streamed row.

        The stage after a provisional maximum computes the maximum too.
        """
        stages = self.kernel.stages
        return tuple(s for s in stages if (s.lines or s.outs) and not s.provisional)
