"""A kernel in the words of templates/include/fusegen/forms/description.h, for its form to read.

Each item is the text of a C++ type that names members of the structs of element.h and of the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fusegen.lower.kernel.inputs import Inputs
from fusegen.lower.kernel.kernel import Kernel
from fusegen.lower.kernel.operand import Element, KernelOperand
from fusegen.lower.kernel.results import Result
from fusegen.lower.kernel.stage import Stage

#: What writes the sum over the grid of a result, by the result's kind.
_SUMS = {"col": "ColSum", "channel": "RunSum", "scalar": "Total"}


@dataclass(frozen=True)
class Description:
    """What kernel.cpp says of a kernel.

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
        """What an element and its column read."""
        return tuple(self._inputs(self.kernel.inputs))

    def _inputs(self, inputs: Inputs) -> Iterator[str]:
        for f in inputs.full:
            yield f"Full<{_field('Full', f.name)}, {_arg(f.name)}{_gap(f)}>"
        for f in inputs.rng:
            shared = ", true" if f in self.kernel.shared_rng else ""
            yield f"Rng<{_field('Full', f.name)}, {f.stream}{shared}>"
        for f in inputs.spread:
            yield f"Spread<{_field('Full', f.name)}, {_arg(f.name)}>"
        for f in inputs.col:
            yield f"Col<{_field('Col', f.name)}, {_arg(f.name)}, S>"
        for f in inputs.saved_cols:
            yield f"Col<{_field('Col', f.name)}, {_arg(f.name)}, T>"
        for name in inputs.indices:
            yield f"Index<{_field('Col', name)}>"
        for name in self.kernel.fields.derived_cols:
            yield f"Derived<{_field('Col', name)}>"

    @property
    def row(self) -> tuple[str, ...]:
        """The fields of `Row`, where the form keeps them for many rows at once."""
        fields = self.kernel.fields
        loaded = [f"Row<{_field('Row', name)}, true>" for name in fields.row_loads]
        found = [f"Row<{_field('Row', name)}>" for name in fields.row[len(loaded) :]]
        return (*loaded, *found)

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """For each stage its function and its items."""
        return tuple(tuple(self._stage(stage)) for stage in self.kernel.stages)

    def _stage(self, stage: Stage) -> Iterator[str]:
        kernel = self.kernel
        first_of_rng = kernel.shared_rng and stage.index == 0
        has_elements = stage.lines or stage.outs or first_of_rng
        yield f"&K::stage{stage.index}" if has_elements else "nullptr"
        if stage.row_lines:
            lines = stage.row_lines if kernel.outer else ()
            computed = [_field("Row", line.target.name) for line in lines]
            yield f"RowLines<{', '.join([f'&K::row{stage.index}', *computed])}>"
        if not has_elements:
            return
        repeated = [s for s in kernel.stages[: stage.index] if s.live] if self.recomputed else []
        for earlier in repeated:
            yield f"After<&K::stage{earlier.index}>"
        # Loads that are not used cost nothing; what is drawn, spread or prefetched does.
        loaded = () if kernel.outer else tuple(f.name for f in kernel.inputs.full)
        for name in sorted(stage.full_reads.difference(loaded)):
            yield f"Uses<{_field('Full', name)}>"
        for name in sorted(kernel.live.reads_in(stage) - stage.full_reads.union(loaded)):
            yield f"UsesAgain<{_field('Full', name)}>"
        for name in stage.reads:
            yield f"Read<{_field('Live', name)}>"
        for name in stage.live:
            yield f"Keep<{_field('Live', name)}>"
        for r in stage.reductions:
            word = "Sum" if r.op == "sum" else "Largest"
            yield f"{word}<{_field('Out', r.name)}, {_field('Row', r.name)}>"
        for result in stage.results.stores:
            yield f"Store<{_field('Out', result.name)}, {_arg(result.name)}{_gap(result)}>"
        added = (stage.results.col_sums, stage.results.run_sums, stage.results.element_totals)
        for result in (r for results in added for r in results):
            yield f"{_SUMS[result.kind.label]}<{_field('Out', result.name)}, {self._to(result)}>"

    @property
    def recomputed(self) -> bool:
        """Whether a stage over adjacent columns computes earlier live values again."""
        return len(self.kernel.stages) > 1 and self.kernel.live.recomputed

    @property
    def row_results(self) -> tuple[str, ...]:
        """The sums over one number of each row: per channel, then over everything."""
        results = self.kernel.results
        sums = [f"RowSum<{self._to(r)}>" for r in results.row_sums]
        return (*sums, *(f"RowTotal<{self._to(r)}>" for r in results.row_totals))

    def _to(self, added: Result) -> str:
        """Return the results that one sum over the grid is written to."""
        same = [r for r in self.kernel.results.grid_sums if r.summed_as == added.name]
        return ", ".join(f"To<{_arg(r.name)}, {stored(r)}>" for r in same)

    @property
    def row_loads(self) -> tuple[tuple[str, str], ...]:
        """The fields of `Row` that are loaded for row `i`, each with its code."""
        inputs = self.kernel.inputs
        found = [(f.name, _row_value(f)) for f in inputs.row]
        found += [(f.name, f"at<T>(args.{f.name}, i)") for f in inputs.saved_rows]
        return (*found, *((e.name, self._taken(e)) for e in inputs.taken))

    def _taken(self, taken: Element) -> str:
        """Return the code of the element of an operand in row `i`, in the column that an index names."""
        operand, outer = taken.operand, self.kernel.outer
        of_row = operand.kind.label == "full"
        row, inner = ("i" if of_row else "0"), ("args.inner" if of_row and outer else "1")
        index = f"static_cast<const int64_t*>(args.{taken.index})[i]"
        place = f"{row}, {index}, args.cols, {inner}"
        if operand in self.kernel.inputs.rng:
            return f"T(uniform(*args.seed, {operand.stream}, uint64_t(place_in_row({place}))))"
        stored_as = "S" if operand in self.kernel.inputs.tensors else "T"
        memory = f"static_cast<const {stored_as}*>(args.{operand.name})"
        if operand.strided:
            memory += (
                f" + gap_before(args.{operand.tensor}_gap, i{' / args.inner' if outer else ''})"
            )
        return f"Storage<{stored_as}>::load(take({memory}, {place}))"

    @property
    def scalar_loads(self) -> tuple[tuple[str, str], ...]:
        """The fields of `Scalar` that a call gives, each with its code."""
        inputs = self.kernel.inputs
        found = [(f.name, f"at<S>(args.{f.name}, 0)") for f in inputs.scalar]
        found += [(f.name, f"T(args.{f.name})") for f in inputs.attributes]
        found += [(f.name, f"at<T>(args.{f.name}, 0)") for f in inputs.saved_totals]
        return (*found, *((n, f"T(args.{self.kernel.extent(n)})") for n in inputs.extents))


def stored(result: Result) -> str:
    """Return the type that a result is stored in."""
    return "S" if result.like else "T"


def _field(struct: str, name: str) -> str:
    return f"&K::{struct}::{name}"


def _arg(name: str) -> str:
    return f"&Args::{name}"


def _gap(item: KernelOperand | Result) -> str:
    return f", &Args::{item.tensor}_gap" if item.strided else ""


def _row_value(f: KernelOperand) -> str:
    """Return the code of an operand's number for row `i`."""
    if f.integer:
        return f"T(static_cast<const int64_t*>(args.{f.name})[i])"
    place = "channel_of(i, args.channel_run, args.channels)" if f.per_channel else "i"
    return f"at<S>(args.{f.name}, {place})"
