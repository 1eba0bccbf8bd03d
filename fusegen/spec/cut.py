"""Parts of different widths: torch cuts a tensor into views, and a view that steps go on from starts a chain.

Both are sources of a chain that has no word in a spec: `CUT` has the parts as its names, and `START` is the
value that the steps after it go on from. In a chain, that value has its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy as sp

from fusegen.ops import Op
from fusegen.spec.by_element import by_element
from fusegen.spec.computed_size import computed_size
from fusegen.spec.drafts import Draft
from fusegen.spec.formula.of_parts import checked_dim
from fusegen.spec.keys import OF, REST
from fusegen.spec.model import INPUT, NO_PART, Factor, Operand, Ref, Setting, Step
from fusegen.spec.scope import Names, shown
from fusegen.spec.small_values import needs_own_size

__all__ = [
    "CUT",
    "START",
    "cut_of",
    "dim_of_parts",
    "number_of",
    "sizes_of",
    "sizes_of_parts",
    "with_start",
]


def _itself(x: sp.Expr, **where: object) -> sp.Expr:
    """x"""
    del where
    return x


def _source(name: str) -> Op:
    return Op(
        name=name,
        formula=_itself,
        operands={},
        attributes={},
        required=frozenset(),
        torch="",
        source=True,
    )


#: torch cuts a tensor into views.
CUT = _source("cut")
#: A chain starts from a named value.
START = _source("start")


def cut_of(names: Names, draft: Draft, label: str) -> Step | None:
    """Return the step that cuts x into parts of given sizes, or None if a formula takes none.

    Args:
        names: the spec's names.
        draft: the step of the formula.
        label: its label.

    Raises:
        SpecError: if a size is none.
    """
    given = draft.given.get("parts") if draft.takes_sizes else None
    if given is None:
        return None
    dim, sizes = dim_of_parts(names, draft), sizes_of_parts(names, draft)
    return Step(
        label=f"{label}_parts",
        op=CUT,
        formula=None,
        text=f"parts({', '.join(f'{part}={size}' for part, size in given.items())})",
        operands={},
        attributes={"dim": dim},
        settings={str(place): size for place, size in enumerate(sizes)},
        line=names.document.line(draft.place),
        dims=names.dims,
        parts=tuple(NO_PART if part.startswith("_") else part for part in given),
    )


def sizes_of(step: Step) -> list[Setting]:
    """Return the sizes of the parts that a step cuts."""
    return [*step.settings.values()]


def sizes_of_parts(names: Names, draft: Draft) -> list[Setting]:
    """Return the sizes that a formula gives to parts.

    Raises:
        SpecError: if one is no size, or two are what the others leave.
    """
    sizes = [_size(names, draft, part, size) for part, size in draft.given["parts"].items()]
    if sizes.count(REST) > 1:
        message = (
            f"two parts of {draft.word} are of size {REST}, and one may have what the others leave"
        )
        raise names.document.error((*draft.place, "parts"), message)
    return sizes


def dim_of_parts(names: Names, draft: Draft) -> int:
    """Return the dim of the parts, counted from the end.

    Raises:
        SpecError: there is none.
    """
    dim = checked_dim(names, draft.place, draft.given.get("dim", -1))
    return dim % names.dims - names.dims if names.dims >= 2 else -1


def _size(names: Names, draft: Draft, part: str, size: Any) -> Setting:
    """Return the size of a part.

    Raises:
        SpecError: if it is none.
    """
    ints = names.of_type("int")
    if isinstance(size, int) and not isinstance(size, bool) and (size == REST or size >= 1):
        return size
    if isinstance(size, str) and size in ints:
        return Ref(size, is_argument=True)
    found = computed_size(size, ints) if isinstance(size, str) else None
    if found is None:
        message = (
            f"the size of {part} must be a size, an int argument, sums and products of these, or {REST} for "
            f"what the other parts leave, not {shown(size)}"
        )
        raise names.document.error((*draft.place, "parts", part), message)
    return found


def number_of(chain: Sequence[Step], place: int) -> int:
    """Return the number, in the spec's own chain, of the step at a place."""
    return sum(step.op not in (CUT, START) for step in chain[:place])


def with_start(
    step: Step, before: Sequence[Step], operands: Mapping[str, Operand], dims: int
) -> list[Step]:
    """Return a step, after the step that starts a chain for it if there must be one.

    Args:
        step: the step; if it is a formula of operands alone, its factor is the one that it starts from.
        before: the steps before it.
        operands: the operands.
        dims: the number of dims of x.
    """
    if OF not in step.factors or step.is_source:
        start = _start_before(step, before, operands)
        return [step] if start is None else [start, step]
    operand = operands[step.factors[OF].name]
    rank = dims if operand.dims is not None else step.dims  # full is what reaches the step
    rank = 0 if operand.factor else rank
    start = _start(f"{step.label}_start", step.factors[OF], {}, step.line, rank)
    return [start, replace(step, factors={}, dims=rank)]


def _start_before(
    step: Step, before: Sequence[Step], operands: Mapping[str, Operand]
) -> Step | None:
    """Return the step that starts a chain for a formula without x, or None if that goes on with a chain.

    It goes on if it names a value of that chain, and one that is as wide as the others there. Any step starts
    a chain that takes a value as small as it is, and finds it expanded.
    """
    here, widths = _widths(before)
    given = [INPUT] if INPUT in step.tensors else []  # where the first step is a source
    named = [name for name in (*step.mentions, *given) if name in widths]
    if not named or not before or step.is_source:
        return None
    first = next((n for n in range(len(before) - 1, 0, -1) if before[n].is_source), 0)
    own = {name for other in before[first:] for name in other.names}
    if needs_own_size(step, before, operands):
        start = before[-1].label if step.takes_x else named[0]
        return _start(start, Factor(start, is_step=True), {}, step.line, step.dims)
    if step.takes_x:
        return None
    apart = (first > 0 or bool(given)) and own.isdisjoint(step.mentions)
    wider = any(other.op is CUT for other in before) and here not in map(widths.get, named)
    # What starts from an operand, or for its size, is small, and may become larger only before what reduces.
    small = before[first].op is START and (
        not before[first].factors[OF].is_step
        or (len(before) > first + 1 and needs_own_size(before[first + 1], before[:first], operands))
    )
    small = small and not {*step.mentions} <= own and not all(by_element(s) for s in before[first:])
    if not (apart or wider or small or before[-1].op is CUT):
        return None
    start = named[0]
    size: Setting = REST
    for cut in (other for other in before if other.op is CUT and start in other.parts):
        if cut.attributes["dim"] == (1 - cut.dims if cut.dims >= 3 else -1):
            size = cut.settings[str(cut.parts.index(start))]
    settings = {} if size == REST else {"features": size}
    return _start(start, Factor(start, is_step=True), settings, step.line, step.dims)


def _start(
    label: str, factor: Factor, settings: Mapping[str, Setting], line: int, dims: int
) -> Step:
    return Step(
        label=label,
        op=START,
        formula=None,
        text=label,
        operands={},
        attributes={},
        settings=settings,
        line=line,
        dims=dims,
        factors={OF: factor},
    )


def _widths(before: Sequence[Step]) -> tuple[object, Mapping[str, object]]:
    """Return what the chain is as wide as, and each value that has a name."""
    here: object = INPUT
    found: dict[str, object] = {INPUT: INPUT}
    for step in before:
        if step.op is CUT:
            for part, size in zip(step.parts, sizes_of(step), strict=True):
                found[part] = (step.attributes["dim"], size if size != REST else step.label)
        elif step.op is START:
            here = found.get(step.label, step.label)
        elif step.is_source:
            here = step.label
        elif step.split:
            here = (here, len(step.split))
            found |= dict.fromkeys(step.parts, here)
        if step.op is not CUT:
            found[step.label] = here
    return here, found
