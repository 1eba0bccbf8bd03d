"""Parts of different widths: torch cuts a tensor into views, and a view that steps go on from starts a chain.

Both are sources of a chain that has no word in a spec: `CUT` has the parts as its names, and `START` is the
value that the steps after it go on from. In a chain, that value has its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy as sp

from fusegen.ops import Op
from fusegen.spec.computed_size import computed_size
from fusegen.spec.dims import DimError, check_dim
from fusegen.spec.drafts import Draft
from fusegen.spec.factor import OF
from fusegen.spec.model import NO_PART, Factor, Ref, Setting, Step
from fusegen.spec.scope import Names, shown

__all__ = ["CUT", "REST", "START", "cut_of", "number_of", "sizes_of", "start_before"]

#: The size of the part that has what the others leave.
REST = -1


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
    dim = _dim(names, draft)
    sizes = {
        str(n): _size(names, draft, part, size) for n, (part, size) in enumerate(given.items())
    }
    if [*sizes.values()].count(REST) > 1:
        message = (
            f"two parts of {draft.word} are of size {REST}, and one may have what the others leave"
        )
        raise names.document.error((*draft.place, "parts"), message)
    return Step(
        label=f"{label}_parts",
        op=CUT,
        formula=None,
        text=f"parts({', '.join(f'{part}={size}' for part, size in given.items())})",
        operands={},
        attributes={"dim": dim},
        settings=sizes,
        line=names.document.line(draft.place),
        dims=names.dims,
        parts=tuple(NO_PART if part.startswith("_") else part for part in given),
    )


def sizes_of(step: Step) -> list[Setting]:
    """Return the sizes of the parts that a step cuts."""
    return [*step.settings.values()]


def _dim(names: Names, draft: Draft) -> int:
    """Return the dim of the parts, counted from the end.

    Raises:
        SpecError: there is none.
    """
    dim = draft.given.get("dim", -1)
    here = (*draft.place, "dim")
    if isinstance(dim, bool) or not isinstance(dim, int):
        message = f"'dim' of expr must be the dim of the parts, not {shown(dim)}"
        raise names.document.error(here, message)
    try:
        check_dim("dim", dim, names.dims, "the parts of [rows, cols] are along the last dim")
    except DimError as error:
        raise names.document.error(here, str(error)) from None
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


def start_before(step: Step, before: Sequence[Step]) -> Step | None:
    """Return the step that starts a chain for a step from a part that is cut, or None if it goes on with the
    chain before it.

    It goes on if it takes x, or names a value that is as wide as those of that chain.
    """
    if not any(other.op is CUT for other in before) or step.takes_x:
        return None
    here, widths = _widths(before)
    named = [name for name in step.mentions if name in widths]
    if not named or (before[-1].op is not CUT and here in [widths[name] for name in named]):
        return None
    start = named[0]
    cut = next((other for other in before if start in other.parts), None)
    size: Setting = REST
    if (
        cut is not None
        and cut.op is CUT
        and cut.attributes["dim"] == (1 - cut.dims if cut.dims >= 3 else -1)
    ):
        size = cut.settings[str(cut.parts.index(start))]
    return Step(
        label=start,
        op=START,
        formula=None,
        text=start,
        operands={},
        attributes={},
        settings={} if size == REST else {"features": size},
        line=step.line,
        dims=step.dims,
        factors={OF: Factor(start, is_step=True)},
    )


def _widths(before: Sequence[Step]) -> tuple[object, Mapping[str, object]]:
    """Return what the chain is as wide as, and each value that has a name."""
    here: object = None
    found: dict[str, object] = {}
    for step in before:
        if step.op is CUT:
            for part, size in zip(step.parts, sizes_of(step), strict=True):
                found[part] = (step.attributes["dim"], size if size != REST else step.label)
        elif step.op is START:
            here = found[step.label]
        elif step.is_source:
            here = step.label
        elif step.split:
            here = (here, len(step.split))
            found |= dict.fromkeys(step.parts, here)
        if step.op is not CUT:
            found[step.label] = here
    return here, found
