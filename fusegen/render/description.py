"""A kernel in the words of templates/include/fusegen/forms/description.h, for its form to read.

Each item is the text of a C++ type that names members of the structs of element.h and of the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fusegen.lower.kernel.inputs import Inputs
from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.kernel.operand import Element, KernelOperand
from fusegen.lower.kernel.results import Result, Results
from fusegen.lower.kernel.stage import Stage

#: What writes the sum over the grid of a result, by the result's kind.
_SUMS = {"col": "ColSum", "channel": "RunSum", "scalar": "Total"}


@dataclass(frozen=True)
class Description:
    """What form.h says of a kernel.

    Args:
        kernel: the kernel.
    """

    kernel: Kernel

    @property
    def form(self) -> str:
        """The function that runs the kernel where a row's columns are adjacent in memory."""
        form = self.kernel.form
        return {"flat": "pointwise", "along": "pointwise"}.get(form, form)

    @property
    def forms(self) -> tuple[str, ...]:
        """The same, and that for columns which are not adjacent, where there may be such."""
        return (self.form, *(("outer",) if self.kernel.outer else ()))

    @property
    def inputs(self) -> tuple[str, ...]:
        """What elements, columns, rows and the whole call read."""
        return tuple(self._inputs(self.kernel.inputs))

    def _inputs(self, inputs: Inputs) -> Iterator[str]:
        kernel = self.kernel
        for f in inputs.full:
            yield f"Full<{_field('Full', f.name)}, {_arg(f.argument)}{_gap(f)}{_step(f)}>"
        for f in inputs.rng:
            shared = ", true" if f in kernel.shared_rng else ""
            yield f"Rng<{_field('Full', f.name)}, {f.stream}{shared}>"
        for f in inputs.spread:
            yield f"Spread<{_field('Full', f.name)}, {_arg(f.name)}, {_stored(f)}>"
        for f in inputs.col:
            yield f"Col<{_field('Col', f.name)}, {_arg(f.argument)}, {_stored(f)}{_step(f)}>"
        for name in inputs.indices:
            yield f"Index<{_field('Col', name)}>"
        for name in kernel.fields.derived_cols:
            yield f"Derived<{_field('Col', name)}>"
        if kernel.col_lines:
            yield "ColumnLines<&K::columns>"
        for f in inputs.row:
            per_channel = ", true" if f.spread else ""
            yield f"RowLoad<{_field('Row', f.name)}, {_arg(f.name)}, {_stored(f)}{per_channel}>"
        for e in inputs.taken:
            yield self._taken(e)
        for f in inputs.scalar:
            yield f"Scalar<{_field('Scalar', f.name)}, {_arg(f.name)}, {_stored(f)}>"
        for f in inputs.attributes:
            yield f"Number<{_field('Scalar', f.name)}, {_arg(f.name)}>"
        for name in inputs.extents:
            yield f"Number<{_field('Scalar', name)}, {_arg(kernel.extent(name))}>"
        if kernel.scalar_lines:
            yield "ScalarLines<&K::scalars>"

    @property
    def stages(self) -> tuple[str, ...]:
        """Each stage: its function and its items."""
        return tuple(f"Stage<{', '.join(self._stage(stage))}>" for stage in self.kernel.stages)

    @property
    def facts(self) -> tuple[str, ...]:
        """What is true of the kernel, of what description.h takes for false."""
        kernel = self.kernel
        facts = {
            "flat": kernel.form == "flat",
            "recomputed": self.recomputed,
            "outer": kernel.outer,
            "interleaved": kernel.interleaved,
        }
        return tuple(fact for fact, holds in facts.items() if holds)

    def _stage(self, stage: Stage) -> Iterator[str]:
        kernel = self.kernel
        first_of_rng = kernel.shared_rng and stage.index == 0
        has_elements = stage.lines or stage.outs or first_of_rng
        yield f"&K::stage{stage.index}" if has_elements else "nullptr"
        if stage.row_lines:
            computed = [_field("Row", line.target.name) for line in stage.row_lines]
            yield f"RowLines<{', '.join([f'&K::row{stage.index}', *computed])}>"
        if not has_elements:
            return
        repeated = [s for s in kernel.stages[: stage.index] if s.live] if self.recomputed else []
        for earlier in repeated:
            yield f"After<&K::stage{earlier.index}>"
        for name in sorted(stage.full_reads):
            yield f"Uses<{_field('Full', name)}>"
        # Loads that are not used cost nothing; what is drawn, spread or prefetched does.
        loaded = (
            () if kernel.outer and not kernel.grouped else tuple(f.name for f in kernel.inputs.full)
        )
        for name in sorted(kernel.live.reads_in(stage) - stage.full_reads.union(loaded)):
            yield f"UsesAgain<{_field('Full', name)}>"
        if stage.reads_of("col"):
            yield "UsesColumns"
        for name in stage.reads:
            yield f"Read<{_field('Live', name)}>"
        for name in stage.live:
            yield f"Keep<{_field('Live', name)}>"
        for r in stage.reductions:
            word = "Sum" if r.op == "sum" else "Largest"
            yield f"{word}<{_field('Out', r.name)}, {_field('Row', r.name)}>"
        if stage.provisional:
            yield "Provisional"
        if stage.shifted_by:
            yield f"Shifted<{_field('Row', stage.shifted_by)}>"
        if stage.joined:
            yield "Joined"
        if stage.centred:
            yield "Centred"
        for name in stage.rescaled:
            yield f"Rescaled<{_field('Live', name)}>"
        for result in stage.results.stores:
            written = f"{_arg(result.argument)}{_gap(result)}{_step(result)}"
            yield f"Store<{_field('Out', result.name)}, {written}>"
        added = (stage.results.col_sums, stage.results.run_sums, stage.results.element_totals)
        for result in (r for results in added for r in results):
            yield f"{_SUMS[result.kind.label]}<{_field('Out', result.name)}, {self._to(result)}>"

    @property
    def recomputed(self) -> bool:
        """Whether a stage over adjacent columns computes earlier live values again."""
        return len(self.kernel.stages) > 1 and self.kernel.live.recomputed

    @property
    def results(self) -> tuple[str, ...]:
        """What no stage writes: values of rows and columns, and what depends on sums over the grid."""
        return tuple(self._results(self.kernel.results))

    def _results(self, results: Results) -> Iterator[str]:
        for r in results.row_stores:
            yield f"RowStore<{_value(r)}, {_arg(r.name)}, {_stored(r)}>"
        for r in results.row_sums:
            yield f"RowSum<{_value(r)}, {self._to(r)}>"
        for r in results.row_totals:
            yield f"RowTotal<{_value(r)}, {self._to(r)}>"
        for r in results if self.form == "columns" else ():
            yield f"ColStore<{_value(r)}, {_arg(r.argument)}, {_stored(r)}{_step(r)}>"
        if results.finals:
            for r in results.known_totals:
                yield f"KnownTotal<{_field('Total', r.name)}, {_arg(r.name)}>"
            yield "FinalLines<&K::finish, typename K::Total>"
            for r in results.finals:
                yield f"Final<{_value(r)}, {_arg(r.name)}, {_stored(r)}>"

    def _to(self, added: Result) -> str:
        """Return the results that one sum over the grid is written to."""
        same = [r for r in self.kernel.results.grid_sums if r.summed_as == added.name]
        words = (("Save" if r.computed else "To", r) for r in same)
        return ", ".join(f"{word}<{_arg(r.argument)}{_step(r)}>" for word, r in words)

    def _taken(self, taken: Element) -> str:
        """Return the item for the element of an operand in the column that an index of the row names."""
        operand, inputs = taken.operand, self.kernel.inputs
        where = f"{_field('Row', taken.name)}, {_arg(taken.index)}"
        of_row = "true" if operand.kind.label == "full" else "false"
        if operand in inputs.rng:
            return f"TakenRng<{where}, {operand.stream}, T, {of_row}>"
        gap, step = _gap(operand), _step(operand)
        gap = ", nullptr" if step and not gap else gap
        return f"Taken<{where}, {_arg(operand.argument)}, {_stored(operand)}, {of_row}{gap}{step}>"


def _stored(item: KernelOperand | Result) -> str:
    """Return the type that a tensor of the call or a result is stored in."""
    return {"x": "S", "computed": "T", "int64": "int64_t"}[item.access.stored]


def _field(struct: str, name: str) -> str:
    return f"&K::{struct}::{name}"


def _arg(name: str) -> str:
    return f"&Args::{name}"


def _gap(item: KernelOperand | Result) -> str:
    return f", &Args::{item.gap}" if item.strided else ""


def _step(item: KernelOperand | Result) -> str:
    """Return the step and the place of a part whose columns alternate with those of another one."""
    access = item.access
    return f", {access.step}, {access.place}" if access.step > 1 else ""


def _value(result: Result) -> str:
    """Return the member of `Row`, `Col`, `Total` or `Scalar` that a result has the value of."""
    return _field(result.value.struct.capitalize(), result.value.name)
