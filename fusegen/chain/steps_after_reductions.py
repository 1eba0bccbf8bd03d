"""Says why a step cannot take a value that earlier steps have reduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fusegen.base.errors import SpecError
from fusegen.chain.dims_of_values import Extent, placed
from fusegen.chain.layout import Layout, channel_from_end
from fusegen.program import Kind
from fusegen.spec.model import Operand, Ref, Spec, Step

__all__ = ["check_shapes", "problem_of_channels", "problem_of_dims", "problem_of_reduced_rows"]


def check_shapes(spec: Spec, step: Step, values: Sequence[Extent]) -> None:
    """Refuse the shape of a parameter that lists its dims, if it has other dims than all values beside it.

    Args:
        spec: the spec.
        step: the step that names it.
        values: what the step starts from, and what its segment does.

    Raises:
        SpecError: the shape of one is refused.
    """
    for operand in (o for o in spec.operands if o.name in step.tensors and o.dims is not None):
        sizes: object = operand.shape
        if isinstance(sizes, str):
            sizes = next((a.default for a in spec.arguments if a.name == sizes), None)
        if not isinstance(sizes, tuple) or len(sizes) == len(operand.dims or ()):
            continue
        larger = {place - len(sizes) for place, size in enumerate(sizes) if size != 1}
        dims = [{*(placed(operand, value.left).dims or ())} for value in values]
        fits = (
            len(sizes) <= value.rank and larger <= own
            for value, own in zip(values, dims, strict=True)
        )
        if not any(fits):
            listed = ", ".join(map(str, sizes))
            message = (
                f"{operand.name!r} cannot broadcast: [{listed}] varies along others than its dims in what "
                f"reaches {step.label}; give one size for each of its dims alone"
            )
            raise SpecError(message, spec.path, operand.line)


def problem_of_channels(step: Step, value: Extent) -> str | None:
    """Return why a step is refused whose tensors have several channels, as torch refuses it, if the value's
    channels are gone or elsewhere; None if it is not.

    Args:
        step: the step.
        value: the extent of the value that reaches it.
    """
    there = value.rank < 2 or channel_from_end(value.rank) in value.varies
    if step.op is None or (there and not value.moved):
        return None
    given = {n: r.name for n, r in step.operands.items() if isinstance(r, Ref)}
    channels = {n: a for n, a in given.items() if a in step.tensors}
    for name, attribute in {**channels, **step.state}.items():
        if name in step.of_channels:
            done = "dropped dims before them" if value.moved else "reduced them to one"
            return (
                f"its {attribute} holds a number for each channel, and an earlier step has {done}; put it "
                "before that step"
            )
    return None


def problem_of_dims(step: Step, start: Extent, declared: Mapping[str, Operand]) -> str | None:
    """Return why a step is refused whose operands vary along dims that were dropped; None if it is not.

    Args:
        step: the step.
        start: the extent of what it starts from.
        declared: the spec's operands.
    """
    for operand in (declared[name] for name in step.tensors if name in declared):
        if start.left and not {*start.left}.issuperset(operand.dims or ()):
            return (
                f"{operand.name!r} varies along a dim that an earlier step has dropped: list others, or "
                "reduce with keepdim: true"
            )
    return None


def problem_of_reduced_rows(
    step: Step, start: Extent, layout: Layout, declared: Mapping[str, Operand]
) -> str | None:
    """Return why a step is refused that normalises rows of one element each; None if it is not.

    Args:
        step: the step.
        start: the extent of what it starts from.
        layout: the layout of its segment.
        declared: the spec's operands.
    """
    if step.op is None or not start.varies.isdisjoint(layout.columns):
        return None
    if step.op.several_values and not step.op.groups:
        return (
            "it normalises several values, and an earlier step has reduced these to one: put it before "
            "that step"
        )
    if not step.op.dims:
        return None
    for name, kind in step.op.operands.items():
        given = step.operands.get(name)
        known = declared.get(given.name) if isinstance(given, Ref) else None
        if kind is Kind.COL and known is not None and known.kind is Kind.COL:
            return (
                f"its {name} has a number for each column, and an earlier step has reduced these to one; "
                "put it before that step, or leave its weight out and multiply after it"
            )
    return None
