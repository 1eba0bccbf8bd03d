"""The record of random cells: a JSON file, the worst cells first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different
from fusegen.tools.bench.record import resumed_machine

#: "wrong": the numbers are; "failed": it could not be built or run. Neither has times.
State = Literal["timed", "wrong", "failed"]

#: How far from the byte limit a cell may be, by direction, and from the best of eager and torch.compile.
TARGETS = {"forward": 1.15, "backward": 1.25}
BEHIND = 1.05
#: No cell should be farther from the byte limit.
FAR = 1.5


@dataclass(frozen=True)
class RandomCell:
    """One direction of a drawn case; times are medians in milliseconds.

    Args:
        case: the number of the case in the draw.
        spec: the spec's name; the record has its text.
        form: the kind of chain.
        steps: the spec's steps in one line.
        shape: of x.
        dtype: of the tensors.
        memory_format: how x lies in memory.
        broadcast: for operands that are broadcast, the dims of size 1.
        groups: the number of groups, if the spec has groups.
        direction: "forward" or "backward".
        tensor_bytes: the bytes of x.
        limit_bytes: the bytes that must move.
        state: whether it was timed.
        note: why not, or why a variant has no time.
        limit_ms: the time for these bytes at the rate of the copy.
        fusegen_ms: the package.
        eager_ms: the same chain in torch.
        compile_ms: that under torch.compile.
        copy_ms: a copy of as many elements as x has.
    """

    case: int
    spec: str
    form: str
    steps: str
    shape: tuple[int, ...]
    dtype: str
    memory_format: str
    broadcast: dict[str, tuple[int, ...]]
    groups: int | None
    direction: str
    tensor_bytes: int
    limit_bytes: int | None = None
    state: State = "timed"
    note: str = ""
    limit_ms: float | None = None
    fusegen_ms: float | None = None
    eager_ms: float | None = None
    compile_ms: float | None = None
    copy_ms: float | None = None

    @property
    def over_limit(self) -> float | None:
        """The time as a multiple of the byte limit."""
        return _ratio(self.fusegen_ms, self.limit_ms)

    @property
    def over_best(self) -> float | None:
        """The time as a multiple of the best of eager and torch.compile."""
        known = [ms for ms in (self.eager_ms, self.compile_ms) if ms is not None]
        return _ratio(self.fusegen_ms, min(known, default=None))

    @property
    def badness(self) -> float:
        """How far the cell is from its nearest missed target, as a multiple of it; infinite without times."""
        if self.over_limit is None:
            return math.inf
        return max(
            self.over_limit / TARGETS[self.direction],
            (self.over_best or 0.0) / BEHIND,
        )


@dataclass
class RandomRecord:
    """The cells of a draw, and the machine that they were measured on.

    Args:
        machine: the machine.
        seed: the seed.
        draw: what else decides the draw.
        specs: the specs' texts, by name.
        cells: the cells.
    """

    machine: dict[str, str | None]
    seed: int
    draw: dict[str, Any]
    specs: dict[str, str] = field(default_factory=dict)
    cells: list[RandomCell] = field(default_factory=list)

    def done(self) -> set[tuple[int, str]]:
        """Return the cases and directions that it has."""
        return {(cell.case, cell.direction) for cell in self.cells}

    def worst_first(self) -> list[RandomCell]:
        """Return the cells, the worst first: those that are wrong before those that failed."""
        order = {"wrong": 0, "failed": 1, "timed": 2}
        return sorted(self.cells, key=lambda c: (order[c.state], -c.badness, c.case, c.direction))

    def write(self, path: Path) -> None:
        """Write it atomically, the worst cells first."""
        head = {"machine": self.machine, "seed": self.seed, "draw": self.draw, "specs": self.specs}
        lines = [f"{json.dumps(key)}: {json.dumps(value, indent=1)}" for key, value in head.items()]
        cells = ",\n".join(json.dumps(_to_json(cell)) for cell in self.worst_first())
        write_if_different(path, "{" + ",\n".join(lines) + f',\n"cells": [\n{cells}\n]}}\n')


def is_random(path: Path) -> bool:
    """Return whether a file is a record of random cells."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"seed", "draw"} <= set(found)


def read(path: Path) -> RandomRecord:
    """Return the record in a file.

    Raises:
        UserError: if there is none.
    """
    try:
        found = json.loads(path.read_text())
        cells = [_cell(given) for given in found["cells"]]
        parts = (found["machine"], found["seed"], found["draw"], found["specs"])
        return RandomRecord(*parts, cells)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; measure with `fusegen bench --random`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no record of `fusegen bench --random`: {error!r}") from error


def resumed(path: Path, new: RandomRecord) -> RandomRecord:
    """Return the record in a file, to go on with it; the new one if there is no file.

    Raises:
        UserError: if it was drawn otherwise, or measured on another machine.
    """
    if not path.exists():
        return new
    old = read(path)
    if (old.seed, old.draw) != (new.seed, json.loads(json.dumps(new.draw))):
        raise UserError(
            f"{path} was drawn with --random {old.seed} and {old.draw}, this is --random {new.seed} and "
            f"{new.draw}; leave --resume away"
        )
    old.machine = resumed_machine(path, old.machine, new.machine)
    return old


def _to_json(cell: RandomCell) -> dict[str, Any]:
    """Return a cell for the file, without what it does not have."""
    return {
        k: v for k, v in asdict(cell).items() if v not in ("", {}) and (v is not None or "_ms" in k)
    }


def _cell(given: Mapping[str, Any]) -> RandomCell:
    known = {f.name for f in fields(RandomCell)}
    if unknown := set(given) - known:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    broadcast = {name: tuple(dims) for name, dims in given.get("broadcast", {}).items()}
    whole = {"groups": None, **given, "shape": tuple(given["shape"]), "broadcast": broadcast}
    return RandomCell(**whole)


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below
