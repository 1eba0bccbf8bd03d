"""Parts of an operand, or of the value of an earlier product: each is an operand of the steps that use it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from fusegen.base.errors import nearest
from fusegen.program import Kind
from fusegen.spec.cut import dim_of_parts, sizes_of_parts
from fusegen.spec.dims_along import dims_along
from fusegen.spec.drafts import Draft
from fusegen.spec.formula.of_parts import names_of_parts
from fusegen.spec.keys import OF
from fusegen.spec.model import NO_PART, Factor, Operand, PartsOf, Step
from fusegen.spec.scope import Names, shown

__all__ = ["check_parts_used", "operands_of_parts", "parts_of_operand", "taking_apart"]

#: What a step that takes something apart calls it.
_WHOLE = "parts"


def parts_of_operand(
    names: Names, draft: Draft, label: str, before: Sequence[Step]
) -> PartsOf | None:
    """Return what a formula takes apart beside x, or None if it takes nothing apart.

    Args:
        names: the spec's names.
        draft: the step of the formula.
        label: its label.
        before: the steps before it.

    Raises:
        SpecError: if it is no operand of several numbers, nor the value of an earlier chain.
    """
    if not draft.takes_operand:
        return None
    whole, here = draft.given[OF], (*draft.place, OF)
    if "parts" not in draft.given:
        message = "'of' of expr says what the parts are of: name them, as in parts: [shift, scale]"
        raise names.document.error(here, message)
    if "alternating" in draft.given:
        message = "'alternating' says where two parts of x are: leave it out"
        raise names.document.error((*draft.place, "alternating"), message)
    known = [*names.operands, *names.values]
    if not isinstance(whole, str) or whole not in known:
        near = nearest(whole[:64], known) if isinstance(whole, str) and known else ""
        message = f"'of' of expr must be an operand or an earlier step, not {shown(whole)}{near}"
        raise names.document.error(here, message)
    operand = names.operands.get(whole)
    if operand is not None and (operand.factor or operand.integer or operand.kind is Kind.SCALAR):
        message = f"{whole!r} has no parts beside x: declare it with `dims`, or of kind full or col"
        raise names.document.error(here, message)
    found = names_of_parts(names, draft.place, draft.given["parts"])
    sized = isinstance(draft.given["parts"], dict)
    return PartsOf(
        whole=whole,
        names=tuple(NO_PART if sized and part.startswith(NO_PART) else part for part in found),
        sizes=tuple(sizes_of_parts(names, draft)) if sized else (),
        dim=dim_of_parts(names, draft),
        label=label,
        dims=operand.dims if operand is not None else dims_along(whole, before, names.operands),
    )


def operands_of_parts(
    cut: PartsOf, declared: Mapping[str, Operand], line: int
) -> dict[str, Operand]:
    """Return the parts as operands."""
    whole = declared.get(cut.whole)
    if whole is None:
        whole = Operand(cut.whole, Kind.FULL, None, None, line, dims=cut.dims)
    if whole.dims is not None and set(cut.sizes) == {
        1
    }:  # a part of size 1 is broadcast along that dim
        whole = replace(whole, dims=tuple(dim for dim in whole.dims if dim != cut.dim))
    part = replace(whole, init=None, shape=None, line=line, dotted="", whole=cut.whole)
    return {name: replace(part, name=name) for name in cut.names if name != NO_PART}


def taking_apart(step: Step, cut: PartsOf, values: Collection[str]) -> Step:
    """Return a step that takes something apart."""
    return replace(step, factors={_WHOLE: Factor(cut.whole, is_step=cut.whole in values)})


def check_parts_used(
    names: Names, cuts: Mapping[str, tuple[Draft, PartsOf]], used: Collection[str]
) -> None:
    """Refuse a part that has a name and no use, and what the chain computes where its parts are taken.

    Raises:
        SpecError: there is one.
    """
    for draft, cut in cuts.values():
        for name in cut.names:
            if name != NO_PART and name not in used:
                message = f"no step uses {name}, a part of {cut.whole}: use it, or call it {NO_PART} in parts"
                raise names.document.error((*draft.place, "parts"), message)
