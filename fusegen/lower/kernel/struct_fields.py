"""The fields of the structs that an element's functions read and write: `Row`, `Col`, `Scalar`, `Total`, …"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fusegen.lower.kernel.code import Line
from fusegen.lower.kernel.inputs import Inputs
from fusegen.lower.kernel.results import Results
from fusegen.lower.kernel.stage import Stage


@dataclass(frozen=True)
class StructFields:
    """The names of each struct's fields, loaded ones first.

    Args:
        inputs: what is loaded.
        col_lines, scalar_lines, total_lines: lines that compute further fields from loaded ones.
        stages: the stages, which compute the further fields of `Row`.
        results: the results, whose sums are fields of `Total`.
    """

    inputs: Inputs
    col_lines: tuple[Line, ...]
    scalar_lines: tuple[Line, ...]
    total_lines: tuple[Line, ...]
    stages: tuple[Stage, ...]
    results: Results

    @property
    def derived_cols(self) -> tuple[str, ...]:
        """The fields of `Col` that are computed."""
        return _targets(self.col_lines)

    @property
    def col(self) -> tuple[str, ...]:
        """Every field of `Col`."""
        return (*(f.name for f in self.inputs.col), *self.inputs.indices, *self.derived_cols)

    @property
    def row(self) -> tuple[str, ...]:
        """Every field of `Row`."""
        reduced = (r.name for s in self.stages for r in s.reductions)
        lines = (name for s in self.stages for name in _targets(s.row_lines))
        return (*self.row_loads, *reduced, *lines)

    @property
    def row_loads(self) -> tuple[str, ...]:
        """The fields of `Row` that are loaded."""
        return (*(f.name for f in self.inputs.row), *(e.name for e in self.inputs.taken))

    @property
    def scalar(self) -> tuple[str, ...]:
        """Every field of `Scalar`."""
        inputs = self.inputs
        loaded = (*inputs.scalar, *inputs.attributes)
        return (*(f.name for f in loaded), *inputs.extents, *_targets(self.scalar_lines))

    @property
    def total(self) -> tuple[str, ...]:
        """Every field of `Total`, the sums over the grid first."""
        return (*(r.name for r in self.results.known_totals), *_targets(self.total_lines))

    @property
    def live(self) -> tuple[str, ...]:
        """Every field of `Live`: the values kept from one stage to another."""
        return tuple(name for stage in self.stages for name in stage.live)

    @property
    def out(self) -> tuple[str, ...]:
        """Every field of `Out`."""
        return tuple(name for stage in self.stages for name, _ in stage.outs)


def _targets(lines: Iterable[Line]) -> tuple[str, ...]:
    """Return the names of the fields that lines set."""
    return tuple(line.target.name for line in lines)
