"""The record of a run: a machine and its cells, in a JSON file that stays complete if the run is killed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fusegen.base.errors import UserError
from fusegen.base.files import write_if_different

Kind = Literal["tail", "model"]
Direction = Literal["forward", "backward", "forward+backward"]

#: What must be the same if a run goes on with the record of another run.
_SAME = ("device", "chip", "torch", "triton")
#: What may differ then; the record lists every value.
_LISTED = ("driver", "cuda", "python", "nvcc", "cxx", "threads", "command", "date", "commit")


@dataclass(frozen=True)
class Cell:
    """One measured direction of one chain in one dtype and shape; times are medians in milliseconds.

    Args:
        kind: "tail" (a chain without its matmul) or "model" (the whole module).
        spec: the spec's name.
        dtype: of the tensors; "tf32" is float32 with matmuls in tf32.
        rows: the rows of the activation.
        cols: its columns.
        in_features: a model's columns of x; None for tails.
        direction: what is timed.
        tensor_bytes: the bytes of one activation.
        fusegen_ms: the generated package.
        eager_ms: torch's own functions.
        compile_ms: the same functions under torch.compile; None if skipped.
        compile_max_autotune_ms: the same with mode="max-autotune-no-cudagraphs".
        copy_ms: a copy of one activation into another.
        limit_ms: the time for the tail's bytes at the copy's rate, or for only the linear of a model.
        linear_ms: only the linear of a model; None for tails.
        trailing: the sizes of further dims, if the activation has more than two; `rows` and `cols` are then
            the first two.
    """

    kind: Kind
    spec: str
    dtype: str
    rows: int
    cols: int
    in_features: int | None
    direction: Direction
    tensor_bytes: int
    fusegen_ms: float
    eager_ms: float
    compile_ms: float | None
    compile_max_autotune_ms: float | None
    copy_ms: float
    limit_ms: float
    linear_ms: float | None
    trailing: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        """The key that identifies the cell in a record."""
        return cell_key(
            self.kind,
            self.spec,
            self.dtype,
            (self.rows, self.cols, self.in_features, *self.trailing),
            self.direction,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the cell for the file: `in_features` and `linear_ms` only for models, `trailing` only if
        any."""
        skipped = ("in_features", "linear_ms") if self.kind == "tail" else ()
        return {k: v for k, v in asdict(self).items() if k not in skipped and v != ()}


def cell_key(
    kind: str, spec: str, dtype: str, shape: tuple[int | None, ...], direction: str
) -> tuple[object, ...]:
    """Return the key of a cell; see `Cell`."""
    return kind, spec, dtype, shape, direction


@dataclass
class Record:
    """The measurements of a run, and its machine."""

    machine: dict[str, str | None]
    cells: list[Cell] = field(default_factory=list)

    @property
    def device(self) -> str:
        """The device: "cuda" or "cpu"."""
        return self.machine.get("device") or ("cuda" if self.machine.get("driver") else "cpu")

    def has(self, key: tuple[object, ...]) -> bool:
        """Return whether the record has a cell."""
        return any(cell.key == key for cell in self.cells)

    def write(self, path: Path) -> None:
        """Write the record atomically: the file is always the complete old or new one."""
        cells = [json.dumps(cell.to_json()) for cell in self.cells]  # a line each: diffs stay short
        machine = json.dumps(self.machine, indent=1)
        text = f'{{"machine": {machine},\n"cells": [\n' + ",\n".join(cells) + "\n]}\n"
        write_if_different(path, text)


def read(path: Path) -> Record:
    """Return the record in a file.

    Raises:
        UserError: if there is none.
    """
    try:
        found = json.loads(path.read_text())
        return Record(dict(found["machine"]), [_cell(given) for given in found["cells"]])
    except FileNotFoundError:
        raise UserError(f"{path} is not there; measure with `fusegen bench --output`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no record of `fusegen bench`: {error!r}") from error


def resumed(path: Path, machine: Mapping[str, str | None]) -> Record:
    """Return the record in a file, to go on with it on `machine`.

    Raises:
        UserError: if it was measured on another machine.
    """
    if not path.exists():
        return Record(dict(machine))
    record = read(path)
    record.machine = resumed_machine(path, record.machine, machine)
    return record


def resumed_machine(
    path: Path, old: Mapping[str, str | None], new: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Return the machine of a record in a file that is gone on with.

    Raises:
        UserError: if it was measured on another machine.
    """
    for name in _SAME:
        if name in old and old[name] != new.get(name):
            raise UserError(
                f"{path} was measured with {name} {old[name]}, this is "
                f"{new.get(name)}; a record is of one machine, so leave --resume away"
            )
    found = dict(old)
    for name in _LISTED:
        before, now = old.get(name), new.get(name)
        if now is not None and (before is None or now not in before.split(" | ")):
            found[name] = now if before is None else f"{before} | {now}"
    return found


def rounded(value: float) -> float:
    """Return a time rounded to five significant digits, which is more than a median deserves."""
    return float(f"{value:.5g}")


def _cell(given: Mapping[str, Any]) -> Cell:
    known = {f.name for f in fields(Cell)}
    if unknown := set(given) - known:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    trailing = tuple(given.get("trailing", ()))
    return Cell(**{"in_features": None, "linear_ms": None, **given, "trailing": trailing})
