"""Decides which stage of a kernel computes which value.

A value's depth is the number of row reductions that must finish before it is known. Stage n computes the
values of depth n for every element of the row. It reduces those that depth n + 1 waits for, and keeps those
that later stages read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import sympy as sp

from fusegen.lower.reductions import over_grid, within_row
from fusegen.program import Input, Kind, Map, Program, Reduce, Value, arguments


class LoweringError(Exception):
    """The program has a form that no kernel template supports."""


@dataclass(frozen=True)
class Schedule:
    """The values that a kernel computes, by depth.

    Args:
        needed: every value that is computed or loaded, arguments first.
        depth: for row values, the stage before which they are known; for full values, the stage that computes
            them.
        given: row values and totals that are loaded, not computed.
        final: scalars that depend on sums over the whole grid. They are known when everything else is done.
        recomputed: full values that every stage recomputes from the inputs, because this costs less than
            keeping them.
    """

    needed: tuple[Value, ...]
    depth: dict[Value, int]
    given: tuple[Value, ...]
    final: tuple[Map, ...] = ()
    recomputed: frozenset[Value] = frozenset()
    #: Caches the results of `at` and `reads`, which are called often for each stage.
    _found: dict[tuple[int, Kind | None], list[Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def stages(self) -> int:
        """The number of stages over a row."""
        return 1 + max(self.depth.values(), default=0)

    def at(self, stage: int, kind: Kind) -> list[Map]:
        """Return the nodes of a kind that a stage computes, arguments first."""
        if (stage, kind) not in self._found:
            self._found[stage, kind] = self._at(stage, kind)
        return list(self._found[stage, kind])

    def _at(self, stage: int, kind: Kind) -> list[Map]:
        """Compute what `at` returns."""
        outside = {*self.given, *self.final}
        nodes = [
            v for v in self.needed if v.kind == kind and isinstance(v, Map) and v not in outside
        ]
        own = [v for v in nodes if self.depth[v] == stage]
        if kind != Kind.FULL or not self.recomputed:
            return own
        computed: set[Value] = set(own)
        for node in reversed(nodes):
            if node in computed:
                computed |= {a for a in node.args if a in self.recomputed and self.depth[a] < stage}
        return [v for v in nodes if v in computed]

    @property
    def totals(self) -> list[Reduce]:
        """Return the sums over the grid that the final scalars depend on."""
        args = dict.fromkeys(arg for value in self.final for arg in value.args)
        return [a for a in args if isinstance(a, Reduce) and a not in self.given]

    def written_out(self, expr: sp.Expr, stage: int, kept: Value | None = None) -> sp.Expr:
        """Return an expression with the full values that a stage computes written out, but for one."""
        inside = {v.symbol: v for v in self.at(stage, Kind.FULL) if v is not kept}
        while found := [s for s in expr.free_symbols if s in inside]:
            expr = expr.xreplace({s: inside[s].expr for s in found})
        return expr

    def row_reductions(self, stage: int) -> list[Reduce]:
        """Return the row reductions that a stage finishes."""
        return [
            v
            for v in self.needed
            if within_row(v) and v not in self.given and self.depth[v] == stage + 1
        ]

    def reads(self, stage: int) -> list[Value]:
        """Return the full values of earlier stages that a stage reads.

        Only the stage's nodes read them: values that are reduced, stored or summed belong to the stage
        itself.
        """
        if (stage, None) not in self._found:
            read = dict.fromkeys(arg for node in self.at(stage, Kind.FULL) for arg in node.args)
            self._found[stage, None] = [
                v
                for v in read
                if v.kind == Kind.FULL
                and not isinstance(v, Input)
                and v not in self.recomputed
                and self.depth[v] < stage
            ]
        return list(self._found[stage, None])

    def live(self, stage: int) -> list[Value]:
        """Return the full values that a stage computes and a later stage reads."""
        later = {v for s in range(stage + 1, self.stages) for v in self.reads(s)}
        return [v for v in self.at(stage, Kind.FULL) if v in later]

    @property
    def most_live(self) -> int:
        """Return the most bytes that an element of a 16-bit type keeps between two stages."""
        most = 0
        live = [self.live(s) for s in range(self.stages)]
        read: set[Value] = set()
        stored: set[Value] = set()
        for stage in range(self.stages - 1, 0, -1):
            read.update(self.reads(stage))
            stored.update(
                a for node in self.at(stage, Kind.FULL) for a in node.args if _is_stored(a)
            )
            before = {v for s in range(stage) for v in live[s]}
            most = max(most, 4 * len(before & read) + 2 * len(stored))
        return most


def schedule(program: Program, given: Collection[Value] = ()) -> Schedule:
    """Return the schedule of a program whose `given` row values are loaded.

    Raises:
        LoweringError: a value depends on a sum over rows, which needs a second kernel.
    """
    needed: dict[Value, None] = {}

    def visit(root: Value) -> None:
        stack = [(root, False)]
        while stack:
            value, expanded = stack.pop()
            if value in needed:
                continue
            below = () if value in given else arguments(value)
            if expanded or not below:
                needed[value] = None
            else:
                stack.append((value, True))
                stack.extend((arg, False) for arg in reversed(below))

    outputs = (*(o.value for o in program.outputs.values()), *program.saved)
    for output in outputs:
        visit(output)
    depth: dict[Value, int] = {}
    final: list[Map] = []
    for value in needed:
        if isinstance(value, Input) or value in given:
            depth[value] = 0
            continue
        depth[value] = max((depth[arg] for arg in arguments(value)), default=0)
        if within_row(value):
            depth[value] += 1
        args = arguments(value)
        late = [a for a in args if a in final or (over_grid(a) and a not in given)]
        if late and isinstance(value, Map) and value.kind == Kind.SCALAR:
            final.append(value)
        elif late:
            raise LoweringError(
                f"{program.name}: {value.name} needs the sum {late[0].name} over all rows first"
            )
    plan = Schedule(tuple(needed), depth, tuple(v for v in given if v in needed), tuple(final))
    cheap = _cheap(plan)
    again = replace(plan, recomputed=cheap, depth=_first_used(plan, cheap - set(outputs)))
    later = replace(plan, depth=_first_used(plan, _of_one_tensor(plan) - set(outputs)))
    return min(plan, again, later, key=lambda p: p.most_live)


def _first_used(plan: Schedule, moved: Collection[Value]) -> dict[Value, int]:
    """Return the depths, with `moved` values delayed to the stage of their first use."""
    depth = dict(plan.depth)
    users: dict[Value, list[int]] = {}
    for value in reversed(plan.needed):
        if value in moved:
            depth[value] = max(depth[value], min(users[value]))
        for arg in () if value in plan.given else arguments(value):
            users.setdefault(arg, []).append(depth[value] - within_row(value))
    return depth


def _of_one_tensor(plan: Schedule) -> frozenset[Value]:
    """Return the full values that depend on only one tensor and on row values.

    If they are computed late, the element keeps the tensor's value instead; in 16-bit types this takes half
    the space.
    """
    # The value is None for several tensors, or if anything else varies along columns.
    tensor: dict[Value, Value | None] = {}
    for value in plan.needed:
        if Kind.COL not in value.kind or value in plan.given:
            continue
        if isinstance(value, Map):
            read = {tensor[a] for a in value.args if a in tensor}
            tensor[value] = read.pop() if len(read) == 1 else None
        else:
            tensor[value] = value if _is_stored(value) else None
    return frozenset(v for v, read in tensor.items() if read and isinstance(v, Map))


def _is_stored(value: Value) -> bool:
    """Whether a value is an element of a tensor of the activation's size."""
    return isinstance(value, Input) and value.source == "tensor" and value.access.kind == Kind.FULL


def _cheap(plan: Schedule) -> frozenset[Value]:
    """Return the full values that need at most two additions or multiplications of one tensor's elements.

    Values that use a column or channel operand are excluded: loading the operand again takes longer than the
    arithmetic.
    """
    cost: dict[Value, int] = {}
    tensors: dict[Value, set[Value]] = {}
    for value in plan.needed:
        if not isinstance(value, Map) or value.kind != Kind.FULL or value in plan.given:
            continue
        full = [a for a in value.args if Kind.COL in a.kind]
        if any(a not in cost and not _is_stored(a) for a in full):
            continue
        terms = [e for e in value.expr.args if any(e.has(a.symbol) for a in full)]
        if not (value.expr.is_Add or value.expr.is_Mul) or not all(e.is_Symbol for e in terms):
            continue
        operations = max(1, len(terms) - (len(terms) == len(value.expr.args)))
        total = operations + sum(cost.get(a, 0) for a in full)
        read = {a for a in full if _is_stored(a)}.union(*(tensors.get(a, ()) for a in full))
        if total <= 2 and len(read) <= 1:
            cost[value], tensors[value] = total, read
    return frozenset(cost)
