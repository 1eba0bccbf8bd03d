"""The record of a run: a machine and its cells, in a JSON file that a killed run leaves whole."""

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

#: What must be the same where a run goes on with another's record.
_SAME = ("device", "chip", "torch", "triton")
#: What may differ then; the record lists every value.
_LISTED = ("driver", "cuda", "python", "nvcc", "cxx", "threads", "command", "date", "commit")


@dataclass(frozen=True)
class Cell:
    """One measured direction of one chain in one dtype and shape; times are medians in milliseconds.

    Args:
        kind: "tail" (a chain after its matmul) or "model" (the whole module).
        spec: the spec's name.
        dtype: of the tensors; "tf32" is float32 with matmuls in tf32.
        rows: the rows of the activation.
        cols: its columns.
        in_features: a model's columns of x; None for tails.
        direction: what is timed.
        tensor_bytes: the bytes of one activation.
        fusegen_ms: the generated package.
        eager_ms: the same by torch's own functions.
        compile_ms: those through torch.compile; None where skipped.
        compile_max_autotune_ms: the same with mode="max-autotune-no-cudagraphs".
        copy_ms: a copy of one activation into another.
        limit_ms: what the tail's bytes take at the copy's rate, or a model's linear alone.
        linear_ms: a model's linear alone; None for tails.
        trailing: the sizes of further dims, where the activation has more than two; `rows` and `cols` are
            then those of the first two.
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
        """What tells the cells of a record apart."""
        return cell_key(
            self.kind,
            self.spec,
            self.dtype,
            (self.rows, self.cols, self.in_features, *self.trailing),
            self.direction,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the cell as the file has it: `in_features` and `linear_ms` of models, `trailing` if any."""
        skipped = ("in_features", "linear_ms") if self.kind == "tail" else ()
        return {k: v for k, v in asdict(self).items() if k not in skipped and v != ()}


def cell_key(
    kind: str, spec: str, dtype: str, shape: tuple[int | None, ...], direction: str
) -> tuple[object, ...]:
    """Return the key of a cell; see `Cell`."""
    return kind, spec, dtype, shape, direction


@dataclass
class Record:
    """What a run measured, and on what."""

    machine: dict[str, str | None]
    cells: list[Cell] = field(default_factory=list)

    @property
    def device(self) -> str:
        """The device: "cuda" or "cpu"."""
        return self.machine.get("device") or ("cuda" if self.machine.get("driver") else "cpu")

    def has(self, key: tuple[object, ...]) -> bool:
        """Return whether a cell is there."""
        return any(cell.key == key for cell in self.cells)

    def write(self, path: Path) -> None:
        """Write the record, atomically: the file is the old one or the new one, never a part."""
        cells = [json.dumps(cell.to_json()) for cell in self.cells]  # a line each: diffs stay short
        machine = json.dumps(self.machine, indent=1)
        text = f'{{"machine": {machine},\n"cells": [\n' + ",\n".join(cells) + "\n]}\n"
        write_if_different(path, text)


def read(path: Path) -> Record:
    """Return the record in a file.

    Raises:
        UserError: where there is none.
    """
    try:
        found = json.loads(path.read_text())
        return Record(dict(found["machine"]), [_cell(given) for given in found["cells"]])
    except FileNotFoundError:
        raise UserError(f"{path} is not there; measure with `fusegen bench --output`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no record of `fusegen bench`: {error!r}") from error


def resumed(path: Path, machine: Mapping[str, str | None]) -> Record:
    """Return the record in a file, to go on with on `machine`.

    Raises:
        UserError: where it was measured on something else.
    """
    if not path.exists():
        return Record(dict(machine))
    record = read(path)
    for name in _SAME:
        if name in record.machine and record.machine[name] != machine.get(name):
            raise UserError(
                f"{path} was measured with {name} {record.machine[name]}, this is "
                f"{machine.get(name)}; a record is of one machine, so leave --resume away"
            )
    for name in _LISTED:
        old, new = record.machine.get(name), machine.get(name)
        if new is not None and (old is None or new not in old.split(" | ")):
            record.machine[name] = new if old is None else f"{old} | {new}"
    return record


def rounded(value: float) -> float:
    """Return a time to five significant digits, which is more than a median is good for."""
    return float(f"{value:.5g}")


def _cell(given: Mapping[str, Any]) -> Cell:
    known = {f.name for f in fields(Cell)}
    if unknown := set(given) - known:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    trailing = tuple(given.get("trailing", ()))
    return Cell(**{"in_features": None, "linear_ms": None, **given, "trailing": trailing})
