"""What the templates get: a kernel as lines of code, fields and stages. No sympy from here on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fusegen.lower.kernel.results import KernelResults
from fusegen.lower.kernel.stage import Field, Result, Stage

#: How the elements may lie for a kernel, each a case of the next: one dim after the other; columns together
#: with nothing after them, rows and columns each in their own order; the same, but with rows after the
#: columns too; in any order without gaps.
MemoryFormat = Literal["contiguous", "packed", "strided", "any"]


@dataclass(frozen=True)
class Kernel(KernelResults):
    """One kernel: which loops it needs, how its elements may lie, and what a GPU's threads hold of it.

    Args:
        before: the kernels that leave what this one reads of columns and sums over rows, in order.
    """

    before: tuple[Kernel, ...] = ()

    @property
    def memory_format(self) -> MemoryFormat:
        """How elements may lie in memory.

        Channels spread along rows and columns are known by an element's place where the tensor is contiguous,
        a draw by the place where the element lies.
        """
        parts = [k for k in self.parts if k.form != "columns"]
        if any(k.spread or k.run_sums for k in parts):
            return "contiguous"
        if all(k.flat for k in parts):
            return "any"
        if any(k.sampled for k in parts):  # whole matrices of a contiguous tensor
            return "packed"
        return "strided" if all(k.flat or k.across for k in parts) else "packed"

    def extent(self, name: str) -> str:
        """Return the argument that holds an extent: a sample's kernel has other rows than the activation."""
        return "all_rows" if self.sampled and name == "rows" else name

    @property
    def parts(self) -> tuple[Kernel, ...]:
        """The kernels that run in one call, in order."""
        return (*self.before, self)

    @property
    def struct(self) -> str:
        """The name of its struct of element functions: `backward_train` is `BackwardTrain`."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def form(self) -> Literal["flat", "pointwise", "along", "rows", "columns"]:
        """Which loops it needs: over one long row, down the columns, along each row for its statistics, over
        each row as a whole, or over the columns alone, without the activation."""
        if not self.stages:
            return "columns"
        if self.reduces_rows or self.spread or self.run_sums:
            return "rows"
        if self.saved_rows and not (self.col or self.saved_cols or self.col_sums):
            return "along"
        return "flat" if self.flat and not self.halved else "pointwise"

    @property
    def across(self) -> bool:
        """Whether it needs loops for rows whose columns lie apart, beside those over a row as a whole."""
        return self.strided and not self.flat

    @property
    def holds_columns(self) -> bool:
        """Whether a GPU's thread keeps the operands of its columns from row to row: what several of them take
        of the first-level cache is more than a row's own elements. More than 24 bytes a column of a 16-bit
        type would not fit in its registers, nor do these where an element holds much."""
        return self.holds_little and 12 <= 2 * len(self.col) + 4 * len(self.saved_cols) <= 24

    @property
    def singly(self) -> bool:
        """Whether a GPU's threads may take one row and no other: rows share no state."""
        return not (self.column_sums or self.totals or self.holds_columns)

    @property
    def has_policy(self) -> bool:
        """Whether it reads tensors under a policy of a GPU's second-level cache."""
        copies = self.form in ("rows", "along") or self.across  # which takes no registers
        return bool(self.full) and (copies or self.loads_by_policy)

    @property
    def loads_by_policy(self) -> bool:
        """Whether its loads use the policy too.

        Kernels that sum columns don't: they have too few registers left to keep several loads in flight.
        """
        return not self.column_sums

    @property
    def held_sums(self) -> int:
        """How many sums of columns a GPU's thread may have in registers, where it has the room."""
        return len(self.col_sums) if self.holds_little else 0

    @property
    def holds_little(self) -> bool:
        """Whether an element leaves registers for what its column needs."""
        return self.most_held <= 4

    @property
    def most_held(self) -> int:
        """How many inputs and values an element holds at most from one stage to the next."""
        return max(sum(held) for held in self.held)

    @property
    def reduces_rows(self) -> bool:
        """Whether a row must be seen as a whole."""
        return any(s.reductions for s in self.stages) or any(r.per_row for r in self.results)

    @property
    def reads_elements(self) -> bool:
        """Whether anything is computed for each element, not for each row alone."""
        return any(s.lines or s.outs for s in self.stages)

    @property
    def reads_once(self) -> bool:
        """Whether one pass over a row is all, and its columns are not summed: it need not be held.

        Where channels are spread along it, a row that is held knows them by an addition.
        """
        return len(self.passes) == 1 and not (self.column_sums or self.spread)

    @property
    def light(self) -> bool:
        """Whether what the stages hand on is soon computed again, so that none of it need be kept."""
        return not (self.random or any(line.calls for s in self.stages[:-1] for line in s.lines))

    def reads_in(self, stage: Stage) -> frozenset[str]:
        """The full inputs that a stage reads where what a light kernel's stages hand on is computed again."""
        return self.reads_to(stage) if self.light else frozenset(stage.full_reads)

    @property
    def staged(self) -> bool:
        """Whether a row that is too long for registers is best kept in shared memory."""
        return len(self.passes) > 1 and self.light

    @property
    def staged_items(self) -> int:
        """How many accesses of such a row a thread may have, so that its sums by channel stay in registers.

        0: any number of them, with the sums in shared memory.
        """
        return 8 if 0 < len(self.run_sums) <= 2 and not self.col_sums else 0

    @property
    def passes(self) -> tuple[Stage, ...]:
        """The stages for which a streamed row is read: a provisional maximum is found in the next pass."""
        return tuple(s for s in self.stages if (s.lines or s.outs) and not s.provisional)

    @property
    def droppable(self) -> tuple[Result, ...]:
        """The statistics of rows: their pointers are null in a call that no derivative will follow."""
        statistics = [r for r in self.results if r.like is None]
        apart = any(k.form != "columns" for k in self.before)
        apart = apart or any(r not in self.row_stores for r in statistics)
        return () if apart else tuple(statistics)

    @property
    def joint_values(self) -> int:
        """How many values one exchange among a row's threads carries at most."""
        joint = (len(s.reductions) + 1 for s in self.stages if s.shifted_by)
        return max([1, *joint, *(min(len(s.reductions), self.jointly) for s in self.stages)])

    @property
    def jointly(self) -> int:
        """How many sums or maxima one exchange takes; more of them would cost registers."""
        return 4

    @property
    def kept_draws(self) -> tuple[Field, ...]:
        """The draws that several stages over a row read: made once, for the whole row."""
        if self.across:  # drawn anew for each element
            return ()
        return tuple(f for f in self.random if sum(f.name in s.full_reads for s in self.stages) > 1)

    @property
    def held(self) -> tuple[tuple[int, int], ...]:
        """What an element holds before the first stage and after each but the last.

        As pairs: how many inputs, as they are stored, and how many values, as they are computed.
        """
        stored = [f.name for f in self.full]
        found = [(len(stored), 0)]
        for stage in self.stages[:-1]:
            later = self.stages[stage.index + 1 :]
            inputs = sum(1 for name in stored if any(name in s.full_reads for s in later))
            values = {
                name
                for s in self.stages[: stage.index + 1]
                for name in s.kept
                if any(name in t.reads for t in later)
            }
            found.append((inputs, len(values)))
        return tuple(found)

    @property
    def keeps(self) -> bool:
        """Whether an element holds anything but inputs from one stage to the next."""
        return any(computed for _, computed in self.held)

    @property
    def flat(self) -> bool:
        """Whether no value depends on where a row ends, so that what lies together is one long row."""
        by_row = self.row or self.saved_rows or self.reduces_rows or self.spread or self.run_sums
        by_col = self.col or self.saved_cols or self.indices or self.col_sums
        return not (by_row or by_col or self.extents or self.sampled)

    @property
    def halved(self) -> bool:
        """Whether it reads or writes halves of a tensor, so that there always are gaps."""
        return any(item.half for item in self.gapped)

    @property
    def gapped(self) -> tuple[Field | Result, ...]:
        """The inputs and results between whose rows there may be gaps: of two halves one, which lie alike."""
        items: tuple[Field | Result, ...] = (*self.full, *self.aside, *self.stores)
        return tuple({item.tensor: item for item in items if item.gapped}.values())
