"""What runs a kernel on each back end and why, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fusegen.chain import Chain, Chains
from fusegen.lower import Kernel
from fusegen.lower.kernel.gpu_form import GpuForm
from fusegen.lower.kernel.launch import choose_launch
from fusegen.lower.kernel.stage import Stage
from fusegen.render.description import Description
from fusegen.spec.model import OPERATORS

__all__ = ["KernelFacts", "kernels_of", "why"]

#: What the CPU's loops go over, by form.
_CPU = {
    "pointwise": "tiles of rows and columns",
    "rows": "a row at a time",
    "outer": "neighbouring rows side by side",
    "columns": "columns alone",
}


@dataclass(frozen=True)
class KernelFacts:
    """One kernel.

    Args:
        name: its name.
        why: why it has its form.
        cpu: the loops on the CPU, and the headers with them.
        gpu: the same on the GPU.
        stages: what each stage does, if there are several or a reduction.
        reads: its inputs.
        writes: its results.
        launch: each launch parameter on the GPU: its name, value and meaning.
    """

    name: str
    why: str
    cpu: tuple[str, tuple[str, ...]]
    gpu: tuple[str, tuple[str, ...]]
    stages: tuple[str, ...]
    reads: str
    writes: str
    launch: tuple[tuple[str, int, str], ...]

    @property
    def chosen_at_the_call(self) -> bool:
        """Whether the GPU's loops depend on the length of the row too."""
        return "gpu_rows.cuh" in self.gpu[1]


def kernels_of(chain: Chain | Chains, tuned: Mapping[str, Mapping[str, int]]) -> list[KernelFacts]:
    """Return the facts of each kernel of a chain, in the order of the operators.

    Args:
        chain: the chain.
        tuned: the launch parameters that `fusegen tune` found.
    """
    found = []
    for mode in chain.modes:
        for operator, kernel in zip(OPERATORS, mode.kernels, strict=False):
            wanted = {**tuned.get(operator, {}), **chain.spec.launch.get(operator, {})}
            found += [_facts(part, wanted) for part in kernel.parts]
    return found


def _facts(kernel: Kernel, wanted: Mapping[str, int]) -> KernelFacts:
    gpu, cpu = GpuForm(kernel), Description(kernel).forms
    return KernelFacts(
        kernel.name,
        why(kernel),
        ("; or ".join(_CPU[form] for form in cpu), tuple(f"cpu_{form}.h" for form in cpu)),
        (gpu.serves, tuple(f"gpu_{form}.cuh" for form in gpu.forms)),
        tuple(_stage(s) for s in kernel.stages) if kernel.reduces or len(kernel.stages) > 1 else (),
        kernel.signature,
        kernel.returns,
        choose_launch(kernel, wanted).constants,
    )


def why(kernel: Kernel) -> str:
    """Return why a kernel has its form."""
    inputs, results = kernel.inputs, kernel.results
    if kernel.form == "columns":
        return "It reads no element of the activation."
    if kernel.form == "rows":
        reasons = [f"reduces each row, to {_reduced(kernel)}"] if _reduced(kernel) else []
        per_row = [r.name for r in results if r.per_row]
        reasons += [f"writes a value for each row ({_named(per_row)})"] if per_row else []
        spread = [f.name for f in inputs.spread] + [r.name for r in results.run_sums]
        reasons += [f"has one number per channel within a row ({_named(spread)})"] if spread else []
        return f"It {', and '.join(reasons)}. So a row is processed as a whole."
    if kernel.form == "along":
        saved = _named(f.name for f in inputs.row if f.saved)
        return (
            f"It reads saved statistics of each row ({saved}), and no tensor that varies by column."
        )
    by_column = [f.name for f in inputs.col]
    by_column += [*inputs.indices, *(r.name for r in results.col_sums)]
    by_row = [f.name for f in inputs.row]
    reasons = [f"{_named(by_column)} varies by column"] if by_column else []
    reasons += [f"{_named(by_row)} varies by row"] if by_row else []
    reasons += ["it takes parts of a tensor"] if kernel.halved else []
    if kernel.form == "flat" or not reasons:
        return "No value depends on where a row ends, so all elements are one long row."
    return f"No element needs another one of its row, but {' and '.join(reasons)}."


def _reduced(kernel: Kernel) -> str:
    return _named(r.name for s in kernel.stages for r in s.reductions)


def _stage(stage: Stage) -> str:
    """Return what a stage does to a row, or to an element."""
    return "; ".join(_work(stage)) or "computes values of rows alone"


def _work(stage: Stage) -> Iterator[str]:
    if stage.reads:
        yield f"takes {_named(stage.reads)} from earlier stages"
    if stage.reductions:
        yield f"reduces {_named(f'{r.name} ({r.op})' for r in stage.reductions)}"
    if stage.live:
        yield f"keeps {_named(stage.live)}"
    if stage.results.stores:
        yield f"writes {_named(r.name for r in stage.results.stores)}"
    added = (stage.results.col_sums, stage.results.run_sums, stage.results.element_totals)
    if any(added):
        yield f"adds up {_named(r.name for results in added for r in results)}"


def _named(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
