"""The chains of a spec: each starts from a source, which torch computes, and has the steps up to the next."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from fusegen.base.errors import SpecError
from fusegen.program import Kind
from fusegen.spec.code_names import code_names
from fusegen.spec.cut import START
from fusegen.spec.gradient_paths import reached_from
from fusegen.spec.model import INPUT, Operand, Ref, Spec, Step

__all__ = ["chains_of", "named_by", "start_of_chain"]


def start_of_chain(steps: Sequence[Step], place: int) -> int:
    """Return the place of the first step of the chain that the step at a place belongs to."""
    return next((n for n in range(place, 0, -1) if steps[n].is_source), 0)


def named_by(step: Step) -> Iterator[str]:
    """Yield the earlier steps whose values a step names."""
    yield from step.mentions
    yield from (factor.name for factor in step.factors.values() if factor.is_step)


def chains_of(spec: Spec) -> tuple[Spec, ...]:
    """Return a spec for each of its chains; a spec with one chain is its own.

    A value of an earlier chain is a full operand of a later one, and a further output of its own.

    Raises:
        SpecError: a chain goes on from a value of float32 or int64.
    """
    starts = [n for n, step in enumerate(spec.steps) if not n or step.is_source]
    if len(starts) == 1:
        return (spec,)
    bounds = itertools.pairwise([*starts, len(spec.steps)])
    spans = [spec.steps[first:end] for first, end in bounds]
    reached = reached_from(spec.steps, spec.outputs or (spec.steps[-1].label,))
    found = []
    for number, steps in enumerate(spans, 1):
        own = {name for step in steps for name in step.names}
        given = {steps[0].label} if steps[0].op is START else set()
        later = {name for span in spans[number:] for step in span for name in named_by(step)}
        wanted = ((later | {*spec.outputs}) & own) - given
        _check_dtypes(spec, steps, later, last=number == len(spans))
        outputs = [n for s in steps for n in s.names if n in {*wanted, steps[-1].label}]
        # The first chain starts from the input; without a source, its steps name it as a value.
        known = own | ({INPUT} if number == 1 else set())
        taken = dict.fromkeys(n for step in steps for n in step.mentions if n not in known)
        handed = [Operand(name, Kind.FULL, None, None, steps[0].line) for name in taken]
        used = {name for step in steps for name in step.tensors}
        used |= {factor.name for step in steps for factor in step.factors.values()}
        found.append(
            replace(
                spec,
                steps=tuple(_with_operands(step, taken) for step in steps),
                operands=(*(o for o in spec.operands if o.name in used), *handed),
                dims=steps[0].dims,
                outputs=tuple(outputs) if len(outputs) > 1 else (),
                float32=spec.float32 & own,
                codes={**code_names(taken, ()), **spec.codes},
                number=number,
                detached=frozenset(outputs) - reached,
            )
        )
    return tuple(found)


def _with_operands(step: Step, names: Collection[str]) -> Step:
    """Return a step that takes some values of earlier steps as operands."""
    operands = {
        slot: replace(ref, is_step=False) if isinstance(ref, Ref) and ref.name in names else ref
        for slot, ref in step.operands.items()
    }
    return replace(step, operands=operands)


def _check_dtypes(spec: Spec, steps: Sequence[Step], later: Collection[str], *, last: bool) -> None:
    """Refuse a value of another dtype than x's that a later chain takes.

    Raises:
        SpecError: there is one.
    """
    for step in steps:
        if step.label in spec.float32 and (step.label in later or (step is steps[-1] and not last)):
            message = (
                f"{step.label} is returned with `dtype: float32`, and a later product takes it, in x's "
                "dtype: leave out the dtype"
            )
            raise SpecError(message, spec.path, step.line)
