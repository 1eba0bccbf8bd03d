"""Which pass over a row computes which value.

A value's level is the number of row reductions that must be finished before it is known. Stage n
computes the values of level n for every element of the row, reduces those that level n + 1 waits
for, and keeps those that later stages read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fusegen.program import Input, Kind, Map, Program, Reduce, Value, arguments


class LoweringError(Exception):
    """The program has a form that no kernel template covers yet."""


@dataclass(frozen=True)
class Schedule:
    """The values a kernel computes, by level.

    Args:
        needed: every value that is computed or loaded, arguments first.
        level: the stage before which (row kind) or in which (full kind) each is known.
        given: row values and totals that are loaded, not computed.
        final: scalars that follow from sums over the whole grid, so are known when all else is done.
    """

    needed: tuple[Value, ...]
    level: dict[Value, int]
    given: tuple[Value, ...]
    final: tuple[Map, ...] = ()

    @property
    def stages(self) -> int:
        """The number of passes over a row."""
        return 1 + max(self.level.values(), default=0)

    def at(self, stage: int, kind: Kind) -> list[Map]:
        """Return the nodes of a kind that are computed at a stage, arguments first."""
        return [
            v
            for v in self.needed
            if isinstance(v, Map)
            and v not in self.given
            and v not in self.final
            and v.kind == kind
            and self.level[v] == stage
        ]

    @property
    def totals(self) -> list[Reduce]:
        """Return the sums over the grid from which the final scalars follow."""
        args = dict.fromkeys(arg for value in self.final for arg in value.args)
        return [a for a in args if isinstance(a, Reduce) and a not in self.given]

    def row_reductions(self, stage: int) -> list[Reduce]:
        """Return the reductions over a row that a stage finishes."""
        return [
            v
            for v in self.needed
            if isinstance(v, Reduce)
            and v.kind == Kind.ROW
            and v not in self.given
            and self.level[v] == stage + 1
        ]

    def reads(self, stage: int) -> list[Value]:
        """Return the full values of earlier stages that a stage reads.

        Only nodes of the stage read them: what is reduced, stored or summed is of the stage itself.
        """
        read = dict.fromkeys(arg for node in self.at(stage, Kind.FULL) for arg in node.args)
        return [
            v
            for v in read
            if v.kind == Kind.FULL and not isinstance(v, Input) and self.level[v] < stage
        ]

    def kept(self, stage: int) -> list[Value]:
        """Return the full values that a stage computes and a later stage reads."""
        later = {v for s in range(stage + 1, self.stages) for v in self.reads(s)}
        return [v for v in self.at(stage, Kind.FULL) if v in later]


def schedule(program: Program, given: Collection[Value] = ()) -> Schedule:
    """Return the schedule of a program whose `given` row values are loaded.

    Raises:
        LoweringError: where a value depends on a sum over rows, which needs a second kernel.
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

    for output in (*(o.value for o in program.outputs.values()), *program.saved):
        visit(output)
    level: dict[Value, int] = {}
    final: list[Map] = []
    for value in needed:
        if isinstance(value, Input) or value in given:
            level[value] = 0
            continue
        level[value] = max((level[arg] for arg in arguments(value)), default=0)
        if isinstance(value, Reduce) and value.kind == Kind.ROW:
            level[value] += 1
        late = [arg for arg in arguments(value) if arg in final or _over_grid(arg, given)]
        if late and isinstance(value, Map) and value.kind == Kind.SCALAR:
            final.append(value)
        elif late:
            raise LoweringError(
                f"{program.name}: {value.name} needs the sum {late[0].name} over all rows first"
            )
    return Schedule(tuple(needed), level, tuple(v for v in given if v in needed), tuple(final))


def _over_grid(value: Value, given: Collection[Value]) -> bool:
    return isinstance(value, Reduce) and value.kind != Kind.ROW and value not in given
