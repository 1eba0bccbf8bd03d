"""Chooses launch parameters that are compiled into a kernel, by a small model of the chip.

To reach the memory's speed, a kernel needs as many bytes in flight as the memory's rate times its latency
(Little's law). On an H200 that is 4.2 TB/s x 0.7 us, or 22 kB for each of 132 multiprocessors. Choices that
depend on the call's shape or on the device are made at the call (templates/include/fusegen/choose_rows.cuh,
chip.cuh).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusegen.lower.kernel.gpu_form import GpuForm
from fusegen.lower.kernel.kernel import Kernel

#: The meaning of each parameter, which the generated code shows beside its number.
MEANINGS = {
    "access": "most bytes of one access: 16, 32, or 0 for the chip's widest",
    "rows_in_flight": "accesses of each input in flight at once",
    "waves": "blocks per block that the chip holds; 1024: one per row",
    "batches": "least batches of rows per thread, if it leaves sums",
    "tiles": "least tiles of columns before a block gets wider",
    "threads_across": "most threads side by side in a row",
    "elements": "most elements of a row in one thread's registers",
    "elements_narrow": "the same for 16-bit elements; 0: as many",
    "block": "threads per block",
    "resident": "blocks of 512 threads that a multiprocessor has room for",
    "resident_narrow": "the same for 16-bit elements",
    "resident_outer": "the same for outer reductions",
    "full": "most threads per block",
    "threads": "most threads in each block of a cluster",
    "cluster": "most blocks that hold a row together",
}


@dataclass(frozen=True)
class Launch:
    """The launch parameters of one kernel.

    `MEANINGS` explains them; `names` lists those that the kernel has.
    """

    names: tuple[str, ...]
    access: int
    rows_in_flight: int
    waves: int
    threads_across: int
    elements: int
    elements_narrow: int
    threads: int
    block: int
    batches: int
    tiles: int
    resident: int
    resident_narrow: int
    resident_outer: int
    full: int
    cluster: int

    @property
    def constants(self) -> tuple[tuple[str, int, str], ...]:
        """Name, value and meaning of each parameter that the kernel has."""
        return tuple((n, getattr(self, n), MEANINGS[n]) for n in self.names)

    @property
    def written(self) -> tuple[tuple[str, int, str], ...]:
        """Those that forms/launch.h does not take for granted."""
        return tuple(c for c in self.constants if c[:2] != ("elements_narrow", 0))


def _names(kernel: Kernel) -> tuple[str, ...]:
    """Return the names of the parameters that a kernel's loops use."""
    sums = bool(kernel.results.column_sums or kernel.results.totals)
    outer = ("resident_outer",) if kernel.outer else ()
    if kernel.form == "columns":
        return ()
    if kernel.form in ("rows", "along"):
        kept = "elements", "elements_narrow"
        return *kept, "threads", "cluster", "waves", "resident", "resident_narrow", "full", *outer
    if kernel.form == "flat":
        return ("access", "rows_in_flight", "waves") if sums else ("access", "rows_in_flight")
    shape = ("access", "rows_in_flight", "tiles", "threads_across", "block")
    return (*shape, *(("waves", "batches") if sums else ()), *outer)


def _waves(kernel: Kernel) -> int:
    """Return how many waves of blocks to launch.

    If little is computed and kept for a row, it is fastest to give each row a block of its own.
    """
    if kernel.form not in ("rows", "along"):
        return 2
    if kernel.results.column_sums:
        return 1
    # Registers go to inputs, and if anything is kept, to that and to the columns read beside it.
    held = len(kernel.inputs.full) + kernel.live.any_computed * (1 + bool(kernel.inputs.col))
    much = _calls(kernel) > 1 or kernel.inputs.rng or held > 2
    return 4 if much or not GpuForm(kernel).rows_apart else 1024


def _calls(kernel: Kernel) -> int:
    """Return how many mathematical functions are called per element."""
    return sum(line.code.calls for stage in kernel.stages for line in stage.lines)


def choose_launch(kernel: Kernel, wanted: Mapping[str, int] | None = None) -> Launch:
    """Return the launch parameters of a kernel.

    Args:
        kernel: the kernel.
        wanted: parameters set by a spec or by `fusegen tune`; those that the form lacks are ignored.
    """
    tensors = max(1, len(kernel.inputs.full))
    # A thread has a vector of each column operand of a stage in registers at once, and everything that an
    # element keeps from one stage to the next. If that is much, a block gets half as many threads.
    columns = len(kernel.inputs.col)
    at_once = max((len(stage.reads_of("col")) for stage in kernel.stages), default=0)
    many = kernel.live.most > 3 or (columns > 2 and at_once > 3)
    # In an outer reduction a thread has several rows, so their values count too.
    wide = (
        many
        or columns > 2
        or bool(kernel.inputs.rng or kernel.inputs.spread)
        or len(kernel.results.column_sums) > 2
    )
    wide = wide or len(kernel.fields.row) + len(kernel.stages) > 7
    # If the math is light, a thread finishes soon: more threads help more than more loads per thread.
    light, arithmetic = _calls(kernel) < 2, not _calls(kernel)
    # With several column sums, computing their terms needs more than 64 registers, unless it is plain
    # arithmetic. In 16-bit types, two blocks with the sums in shared memory are faster then. In other types,
    # if an element keeps little, two blocks are faster that keep fewer elements, and the sums in registers
    # (resident_row.cuh). Rows that span channels are long, so blocks share them: the more each block keeps,
    # the fewer blocks wait for each other.
    results = kernel.results
    summed = kernel.form == "rows" and len(results.column_sums) > 1
    little = kernel.live.most <= 2 and GpuForm(kernel).live_sums == 2
    narrow = many or (summed and not (arithmetic and results.col_sums))
    # Three sums and more leave room for half as many elements, but still for two blocks. So do the vectors of
    # several operands of columns; elements of 16 bits are as many again.
    many_sums = summed and arithmetic and not (little or many or results.run_sums)
    several = columns > 2 and not many
    few = many or many_sums or (several and summed)
    roomy = many or (summed and not many_sums and not (arithmetic and little))
    # Where a block takes long rows by itself, they are not shared by two, which would wait for each other.
    long = few and summed and kernel.live.most <= 4 and at_once <= 4
    chosen = Launch(
        names=_names(kernel),
        access=0,
        rows_in_flight=max(1, (2 if light else 4) // tensors),
        waves=_waves(kernel),
        batches=2,
        tiles=64,
        threads_across=256,
        elements=8 if few or several else 32 if results.run_sums else 16,
        elements_narrow=16 if several and not few else 0,
        threads=512,
        block=256,
        resident=1 if roomy else 2,
        resident_narrow=1 if narrow else 2,
        resident_outer=1 if wide else 2,
        full=512 if results.run_sums or (roomy and not long) else 1024,
        cluster=16,
    )
    for name, value in (wanted or {}).items():
        chosen = replace(chosen, **{name: value})  # type: ignore[arg-type]
    return chosen
