"""Cuts a chain into spans of steps, and finds the earlier values that each span takes.

A new span starts at each step that needs other rows and columns than the steps before it: to reduce, to
broadcast a reduced value, or to use an earlier value that has neither one number per row nor one per column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fusegen.base.errors import SpecError
from fusegen.chain.dims_of_values import Dims, Extent, extent_after, operand_dims, placed
from fusegen.chain.layout import Layout
from fusegen.chain.layout_of_steps import check_grouped, next_span, reduces
from fusegen.chain.sizes_of_operands import sizes_of_operands
from fusegen.chain.span import Span
from fusegen.chain.steps_after_reductions import (
    check_shapes,
    problem_of_channels,
    problem_of_dims,
    problem_of_reduced_rows,
)
from fusegen.program import Kind
from fusegen.spec.by_element import by_element
from fusegen.spec.gradient_paths import reached_from
from fusegen.spec.model import INPUT, Spec, Step


def spans_of(spec: Spec) -> tuple[Span, ...]:
    """Return the chain's spans.

    Raises:
        SpecError: a step can have no layout, or none in which it can use the values that it names.
    """
    walk = _Walk(spec)
    rest: Sequence[Step] = spec.steps
    start: Layout | None = None
    while rest:
        steps, layout, after = next_span(spec, rest, start, first=not walk.found)
        count, start = walk.take(steps, layout)
        if count == len(steps):
            start = after
        rest = rest[count:]
    return walk.spans()


class _Walk:
    """Tracks the extent of the value from step to step."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.found: list[Span] = []
        self.value = Extent.whole(spec.dims)
        self.declared = {o.name: o for o in spec.operands}
        #: The span and the extent of each named value; the span is -1 for the value that the first one starts
        #: from.
        self.named: dict[str, tuple[int, Extent]] = {INPUT: (-1, self.value)}
        #: Of each step, the extent of what it starts from, and that of its value.
        self.extents: dict[str, tuple[Extent, Extent]] = {}
        self.starts: list[Extent] = []  # what reaches each span
        self.opens: tuple[int, ...] | None = None  # the columns for which the next span was cut
        self.reach = self.value  # the extent of the span's activation

    def take(self, steps: Sequence[Step], layout: Layout) -> tuple[int, Layout | None]:
        """Add a span of the first of some steps; return their number, and the next span's layout if known."""
        here, needed = len(self.found), None
        if 0 < self.value.rank < layout.rank:
            raise self._refused(
                steps[0],
                f"an earlier step has reduced the columns, and it needs {layout.rank} dims; reduce with "
                "keepdim: true to go on with them",
            )
        reach, broadcast, broadcasters = self._opening(steps[0])
        expanded = bool(broadcast) and not self.value.varies.isdisjoint(layout.columns)
        self.opens, self.reach = None, reach
        self.starts.append(self.value)
        handed: dict[str, Kind] = {}
        left, whole, without = self.value.left, set[str](), set[str]()
        count, by_elements = 0, bool(broadcast)
        for step in steps:
            self._check_dims(step)
            wrong = problem_of_channels(step, self.value)
            if wrong := wrong or problem_of_dims(step, self._start(step), self.declared):
                raise self._refused(step, wrong)
            check_shapes(self.spec, step, (self._start(step), reach))
            needed = self._needs(step, layout, reach, started=count == 0)
            if needed is not None or (step.paired and broadcast and count):
                break
            if step.paired and broadcast:
                raise self._refused(
                    step,
                    "it takes the halves of a row, and makes what reaches it larger: make two chains of it",
                )
            if wrong := problem_of_reduced_rows(step, self._start(step), layout, self.declared):
                raise self._refused(step, wrong)
            for name in step.mentions:
                where, extent = self.named[name]
                if max(where, 0) < here:
                    kind = extent.kind(layout, reach)
                    handed[name] = Kind.FULL if kind is None else kind  # it is expanded
            named = (*step.tensors, *step.mentions)
            start, before = self._start(step), self.value
            (without if 0 < start.rank < reach.rank else whole).update(step.tensors)
            if by_elements and count:
                added = [n for n in named if {*broadcast} & self._dims(n, layout.columns, start)]
                outside = [n for n in added if n in step.tensors or n in handed]
                broadcasters = (*dict.fromkeys([*broadcasters, *outside]),)
            by_elements = by_elements and by_element(step) and not self._is_named(step)
            given = {name: self._dims(name, layout.columns, start) for name in named}
            self.value = extent_after(step, start, given, layout)
            self.extents[step.label] = (start, self.value)
            self._check_without_x(step, layout, reach)
            biasless = step.op is not None and step.op.source and not step.state
            self.named |= dict.fromkeys(step.parts, (here, start))
            self.named[step.label] = (-1 if biasless else here, self.value)
            if step.indexes:  # the next step goes on from other values
                self.value = before
            count += 1
        check_grouped(self.spec, steps[:count], layout)
        made = Span(
            tuple(steps[:count]),
            layout,
            broadcast,
            broadcasters,
            expanded,
            handed,
            left,
            frozenset(without - whole),
        )
        self.found.append(made)
        return count, needed

    def _is_named(self, step: Step) -> bool:
        """Whether a step's value is returned, or named by another: it must have its own size."""
        named = {name for other in self.spec.steps for name in other.mentions}
        return step.label in named | self.spec.further_outputs

    def spans(self) -> tuple[Span, ...]:
        """Return the spans, with the values that each hands on."""
        found = self.found
        used = {name for span in found for name in span.handed}
        used |= self.spec.further_outputs
        # In the order of the steps, not of their uses, because the program returns them so.
        for name in (name for name in self.named if name in used):
            where, _ = self.named[name]
            if where < 0 or name == found[where].steps[-1].label:
                following = found[where + 1]
                found[where + 1] = replace(following, begins=(*following.begins, name))
            else:
                found[where] = replace(found[where], returned=(*found[where].returned, name))
        outputs = self.spec.outputs or (self.spec.steps[-1].label,)
        reached = reached_from(self.spec.steps, set(outputs) - self.spec.detached)
        for place, span in enumerate(found):
            halved = -1 if span.paired else 0 if place else self.spec.halved
            own = replace(span.layout, halved=halved, partition=span.partition)
            still = frozenset({*span.returned, span.steps[-1].label}) - reached
            sized = sizes_of_operands(span, self.starts[place], self.extents, self.declared)
            found[place] = replace(span, layout=own, still=still, sized=sized)
        return tuple(found)

    def _opening(self, step: Step) -> tuple[Extent, tuple[int, ...], tuple[str, ...]]:
        """Return the extent of a span's activation, the dims that its first step adds, and their cause."""
        if self.opens is None:
            return self.value, (), ()
        gone = frozenset(self.opens) - self.value.varies
        missing = {
            name: self._dims(name, self.opens, self.value) & gone
            for name in (*step.tensors, *step.mentions)
        }
        broadcast = frozenset().union(*missing.values())
        broadcasters = tuple(name for name, dims in missing.items() if dims)
        return self.value.spread(broadcast), tuple(sorted(broadcast)), broadcasters

    def _dims(self, name: str, columns: Sequence[int], value: Extent) -> Dims:
        """Return the dims along which an operand, beside a value, or an earlier value varies."""
        if name in self.declared:
            return operand_dims(placed(self.declared[name], value.left), value.rank, columns)
        return self.named[name][1].varies

    def _needs(self, step: Step, layout: Layout, reach: Extent, *, started: bool) -> Layout | None:
        """Return the layout of the span that a step must start, or None if it continues this one."""
        value = self._start(step)
        broadcast: Dims = frozenset()
        sized = False  # whether what makes the value larger has sizes of its own
        if value.rank == reach.rank:
            for name in (*step.tensors, *step.mentions):
                dims = self._dims(name, layout.columns, value) - value.varies
                full = name in self.declared and self.declared[name].kind is Kind.FULL
                broadcast, sized = broadcast | dims, sized or (full and bool(dims))
        named = [self.named[name] for name in step.mentions]
        handed = [extent for where, extent in named if max(where, 0) < len(self.found)]
        unfit = (extent.varies for extent in handed if extent.kind(layout, reach) is None)
        apart = frozenset[int]().union(*(value.varies - varies or varies for varies in unfit))
        # A value that becomes larger, but not whole, has no kind here: it would vary along a part of the
        # columns.
        partly = value.varies | broadcast != reach.varies
        larger = bool(broadcast) and (partly or (sized and not started))
        if not (larger or apart):
            return None
        rank = layout.rank if layout.rank < 3 else self.value.rank
        wanted = Layout(rank, min(broadcast or apart), max(broadcast or apart))
        if not larger:  # what has no kind in any rows is expanded to the activation in these
            known = all(extent.kind(wanted, value) is not None for extent in handed)
            if started or reduces(step) or not known:
                return None
        if started or reduces(step):
            message = (
                "it names values of which one is neither one a row nor one a column of the other"
            )
            if reduces(step):
                message = "it reduces, and needs other rows for what it names: make two steps of it"
            raise self._refused(step, message)
        self.opens = wanted.columns
        return wanted

    def _start(self, step: Step) -> Extent:
        """Return the extent of what a step starts from: the value before it, or, if dims of that were dropped
        and the step does not use it, the values that it names. A single number may be combined with any.

        Raises:
            SpecError: the step combines values of different numbers of dims.
        """
        named = {name: self.named[name][1] for name in step.mentions}
        found = {"what reaches this step": self.value, **named} if step.takes_x else named
        widest = max(found, key=lambda name: found[name].rank, default="")
        for name, extent in found.items():
            if extent.rank not in (0, found[widest].rank):
                message = f"{widest} has {found[widest].rank} dims, and {name} has {extent.rank}"
                raise self._refused(step, f"{message}: reduce with keepdim: true")
        if not found or found[widest].rank == self.value.rank:
            return self.value
        earlier = any(max(self.named[name][0], 0) < len(self.found) for name in named)
        if earlier and found[widest].rank != self.reach.rank:
            raise self._refused(
                step,
                f"an earlier segment computes {widest}, which has other dims than what reaches this step: "
                "reduce with keepdim: true",
            )
        return found[widest]

    def _check_dims(self, step: Step) -> None:
        """Refuse a dim that an earlier step has dropped. As in torch, a single number has a dim, 0 or -1.

        Raises:
            SpecError: the step names one.
        """
        rank = max(self._start(step).rank, 1)
        for name in step.op.dims if step.op else ("dim",):
            given = step.attributes.get(name)
            for dim in given if isinstance(given, tuple) else (given,):
                if isinstance(dim, int) and not -rank <= dim < rank:
                    left = f"{self.value.rank} dim{'s' if self.value.rank != 1 else ''}"
                    message = f"{name} {dim} does not exist: an earlier step has reduced to {left}"
                    raise self._refused(step, message)

    def _check_without_x(self, step: Step, layout: Layout, reach: Extent) -> None:
        """Refuse a formula without x whose value is neither of elements nor of rows: no outline fits it.

        Raises:
            SpecError: the step is one.
        """
        shapes = (reach.varies, reach.varies.difference(layout.columns))
        if step.takes_x or self.value.rank != reach.rank or self.value.varies in shapes:
            return
        raise self._refused(
            step,
            "what it names has fewer rows than x, and it does not use x: reduce in another order, or combine "
            "it with x",
        )

    def _refused(self, step: Step, message: str) -> SpecError:
        """Return the error that refuses a step."""
        return SpecError(f"{step.label}: {message}", self.spec.path, step.line)
