"""Times for a report: measured here and now by the code of `fusegen bench`, never read from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusegen.base.errors import UserError
from fusegen.models import FusegenBackend
from fusegen.spec import load
from fusegen.tools.against_eager.bench import bench
from fusegen.tools.against_eager.original import original_of
from fusegen.tools.bench import cells, compiling, machine, measure
from fusegen.tools.bench.cells import Group
from fusegen.tools.bench.record import Cell
from fusegen.tools.bench.subjects import Choice

__all__ = ["LIMIT", "TimedPass", "Times", "times_of_chains", "times_of_model"]

#: The label of the time that a copy takes for the bytes that a chain must move.
LIMIT = "byte limit"


@dataclass(frozen=True)
class TimedPass:
    """One pass: a forward, a backward, or a training step.

    Args:
        name: which pass.
        ms: the median of each variant in milliseconds; of a chain, the byte limit too.
    """

    name: str
    ms: Mapping[str, float]

    def width(self, label: str) -> float:
        """Return the length of a variant's bar in per cent."""
        return 100 * self.ms[label] / max(self.ms.values())

    def text(self, label: str) -> str:
        """Return a variant's time; of a chain, also as a multiple of the limit."""
        ms = self.ms[label]
        taken = f"{ms:.3g} ms" if ms >= 0.1 else f"{1000 * ms:.3g} µs"
        limit = self.ms.get(LIMIT)
        return taken if limit is None or label == LIMIT else f"{taken}, {ms / limit:.2f} ×"


@dataclass(frozen=True)
class Times:
    """The times of a chain or a model.

    Args:
        machine: the chip and the version of torch.
        what: the dtype, and the shape of a chain's activation or the text of a model's inputs.
        passes: its passes.
        reason: why nothing was measured; empty if it was.
    """

    machine: str = ""
    what: str = ""
    passes: Sequence[TimedPass] = ()
    reason: str = ""


def times_of_chains(
    path: Path, out: Path, device: str, say: Callable[[str], None], rounds: int | None = None
) -> dict[str, Times]:
    """Return the times of each chain of a spec without its matmul, in one dtype and shape, by its title.

    Args:
        path: the spec.
        out: the folder of its built package.
        device: "cuda" or "cpu".
        say: told what is measured.
        rounds: how often each variant is timed, or None for the default of `fusegen bench`.
    """
    dtypes = load(path).dtypes
    quick = cells.QUICK_DTYPE[device]
    dtype = quick if quick in dtypes else dtypes[0]
    choice = Choice(device, out, dict(list(compiling.MODES.items())[:1]))
    found: dict[str, Times] = {}
    for group in cells.groups(device, [path], [dtype], models=False, quick=True):
        try:
            record = measure.run(measure.Run([group], choice, cells.VALID_DIRECTIONS, rounds), say)
        except UserError as error:
            found[group.name] = Times(reason=str(error))
            continue
        passes = [_pass(cell) for cell in record.cells]
        found[group.name] = Times(_where(record.machine), _what(group), passes)
    return found


def times_of_model(
    text: str,
    inputs: str | None,
    device: str | None,
    say: Callable[[str], None],
    rounds: int | None = None,
    *,
    everything: bool,
) -> Times:
    """Return the times of a model as it is, compiled by torch, and fused.

    Args:
        text: the model, as the command line names it.
        inputs: the text of `--inputs`.
        device: where it runs.
        say: told what is measured.
        rounds: how often each is timed, or None for the default of `fusegen bench`.
        everything: fuse also what the estimate says is slower.

    Raises:
        UserError: if the text names no model, or the model itself fails on the inputs.
    """
    original = original_of(text, inputs, device)
    fused = FusegenBackend(order=1, everything=everything)
    backends = {"fusegen": fused, "eager": None, "torch.compile": "inductor"}
    found = bench(original, backends, original.dtype, say, rounds)
    dtype = str(original.dtype).removeprefix("torch.")
    passes = [TimedPass(timed.name, timed.ms) for timed in found]
    compiling.forget()
    return Times(_where(machine.describe(original.device)), f"{dtype}, inputs {inputs}", passes)


def _where(found: Mapping[str, str | None]) -> str:
    threads = f", {found['threads']} threads" if found["device"] == "cpu" else ""
    return f"{found['chip']}{threads}, torch {found['torch']}"


def _what(group: Group) -> str:
    shape = " × ".join(map(str, (group.rows, group.cols, *group.trailing)))
    return f"{group.dtype}, {shape}"


def _pass(cell: Cell) -> TimedPass:
    times = {
        LIMIT: cell.limit_ms,
        "fusegen": cell.fusegen_ms,
        "eager": cell.eager_ms,
        "torch.compile": cell.compile_ms,
    }
    return TimedPass(cell.direction, {k: v for k, v in times.items() if v is not None})
