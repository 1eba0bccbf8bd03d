"""Leg -> what the template of `__init__.py` needs: its runtime chain, and the running averages it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusegen.chain import Chain, Leg, Mode
from fusegen.program import Input, Kind, Program, Reduce, Take
from fusegen.spec.model import Ref, Spec


@dataclass(frozen=True)
class LegContext:
    """A leg as the template needs it.

    Args:
        chain: what the package calls its runtime chain.
        leg: the leg.
        reaching: what messages call its activation.
        growers: the places of the operands that make its activation larger than what reaches it.
        several_values: whether one of its steps refuses statistics of one value.
        modes: see `_mode_context`.
        taken: the tensors that a call takes beside x.
        kept: the values that it returns beside its last one.
        statistics: what its forward pass saves in training.
        tracked: its steps that keep running averages.
    """

    chain: str
    leg: Leg
    reaching: str
    growers: tuple[int, ...]
    several_values: bool
    modes: list[dict[str, object]]
    taken: list[str]
    kept: list[str]
    statistics: list[str]
    tracked: list[Tracked]


@dataclass(frozen=True)
class Tracked:
    """A step whose submodule keeps running averages.

    Args:
        label: the submodule's name.
        place: which of the chain's such steps it is.
        averages: each buffer's name among the operands, with the saved statistic that it follows.
        momentum: the weight of a batch, as Python text.
    """

    label: str
    place: int
    averages: tuple[tuple[str, str], ...]
    momentum: str


def leg_contexts(chain: Chain) -> list[LegContext]:
    """Return what the template needs of each leg."""
    found: list[LegContext] = []
    for leg in chain.legs:
        found.append(
            LegContext(
                chain=f"_{leg.name or 'chain'}",
                leg=leg,
                reaching=_reaching(leg) if found else "x",
                growers=tuple(
                    place
                    for place, operand in enumerate(leg.operands)
                    if operand.name in leg.stretch.growers
                ),
                several_values=any(s.op and s.op.several_values for s in leg.steps),
                modes=[_mode_context(chain.spec, leg, mode) for mode in leg.modes],
                taken=[o.name for o in leg.operands if o.name != "x"],
                kept=list(leg.stretch.kept),
                statistics=[v.name for v in leg.modes[0].saved],
                tracked=_tracked(chain.spec, leg, sum(len(before.tracked) for before in found)),
            )
        )
    return found


def _reaching(leg: Leg) -> str:
    """Return what messages call the activation of a later leg."""
    label = leg.steps[0].label
    return f"the activation of {label}" if leg.stretch.grown else f"what reaches {label}"


def _mode_context(spec: Spec, leg: Leg, mode: Mode) -> dict[str, object]:
    """Return the text of one `Mode(...)`: which operands and attributes it takes, its passes."""
    forward = mode.programs[0]
    taken = {i.name for i in forward.inputs}
    operands = [n for n, o in enumerate(leg.operands) if o.code in taken]
    attributes = [n for n, a in enumerate(leg.attributes) if spec.code(a) in taken]
    passes = []
    steps = zip(mode.programs, mode.kernels, mode.orders, strict=True)
    for order, (program, kernel, lying) in enumerate(steps):
        tensors = program.tensors
        like = tuple(tensors.index(o.like.tensor) for o in program.returned.values())
        by_column = ", by_column=True" if _by_column(program) else ""
        lies = f', order="{lying}"' if lying != "contiguous" else ""
        value = ", value=True" if kernel.droppable else ""
        outlines = [f'"{output.outline}"' for output in program.returned.values()]
        reduced = not order and set(outlines) != {'"like"'}
        shaped = f", outlines={tuple_text(outlines)}" if reduced else ""
        passes.append(f'Pass("{program.name}", {like}{by_column}{lies}{value}{shaped})')
    return {
        "name": mode.name,
        "operands": tuple(operands),
        "attributes": tuple(attributes),
        "passes": passes,
        "saved": tuple_text([f'"{v.kind.label}"' for v in mode.saved]),
        "random": mode.random,
    }


#: Inputs that say which column of the whole row one is.
_OF_COLUMNS = (("index", "column"), ("extent", "cols"))


def _by_column(program: Program) -> bool:
    """Whether no value depends on a whole row: nothing is reduced along it but what leaves as a result, and
    no column is known by its number."""
    last = {o.value for o in program.outputs.values()}
    return not any(
        (
            isinstance(v, Reduce)
            and Kind.COL in v.arg.kind & ~v.kind
            and (v not in last or v.op == "max")
        )
        or isinstance(v, Take)
        or (isinstance(v, Input) and (v.source, v.name) in _OF_COLUMNS)
        for v in program.nodes()
    )


def _tracked(spec: Spec, leg: Leg, before: int) -> list[Tracked]:
    """Return the steps that keep running averages in training, behind so many of earlier legs."""
    found: list[Tracked] = []
    followed = leg.modes[0].followed
    for step in leg.steps:
        if step.op is None or not step.op.tracked:
            continue
        averages = [
            (f"{step.label}_{step.held[buffer]}", followed[f"{spec.code(step.label)}_{part}"].name)
            for buffer, part in step.op.tracked.items()
        ]
        momentum = step.attributes["momentum"]
        found.append(
            Tracked(
                step.label,
                before + len(found),
                tuple(averages),
                momentum.name if isinstance(momentum, Ref) else repr(momentum),
            )
        )
    return found


def tuple_text(items: Sequence[int | str]) -> str:
    """Return a tuple as Python text."""
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"
