"""Values that are smaller than their chain, which becomes larger after them.

What a chain starts from may be smaller than the value of an earlier chain, or the input, that a step
combines it with: the gate of squeeze-and-excitation is, beside its image. Kernels have one size, so that it
is expanded before them. That changes nothing for steps that compute each element by itself. A reduction would
reduce the copies too, and what is combined with a reduced value would be too large: such a step must start a
chain of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import sympy as sp

from fusegen.atoms.constants import parts
from fusegen.atoms.rows import Reduction
from fusegen.program import Kind, kind_of_formula
from fusegen.spec.by_element import by_element
from fusegen.spec.keys import OF, REST
from fusegen.spec.model import INPUT, Operand, Ref, Step
from fusegen.spec.yaml import Document, Place

__all__ = [
    "as_large",
    "check_size",
    "full_beside",
    "full_operands",
    "keeps_sizes",
    "larger_at",
    "needs_own_size",
]


def larger_at(steps: Sequence[Step], earlier: Collection[str]) -> int | None:
    """Return the place of the step at which a chain may become larger, or None if it does not.

    The steps before it compute each element by itself, and it reduces nothing that is small. A step that
    takes parts takes others that are smaller than all of them.

    Args:
        steps: the chain.
        earlier: the values of earlier chains.
    """
    for place, step in enumerate(steps):
        if step.split:
            return None
        if not _named(step).isdisjoint(earlier):
            small = _reduces_small(step, dict.fromkeys(earlier, Kind.FULL), Kind.SCALAR)
            return None if small else place
        if not by_element(step):
            return None
    return None


def check_size(
    document: Document,
    place: Place,
    step: Step,
    before: Sequence[Step],
    operands: Mapping[str, Operand],
) -> None:
    """Refuse a step that reduces, and takes a value that may be smaller than what reaches it.

    Args:
        document: the spec.
        place: the step's place in it.
        step: the step.
        before: the steps before it.
        operands: the operands.

    Raises:
        SpecError: it does.
    """
    if not before or not _reduces(step) or not needs_own_size(step, before, operands):
        return
    own = _small(*_chain_of(before, operands))
    if not step.takes_x and own.issuperset(step.mentions):  # their sizes are one
        return
    small = next(name for name in step.mentions if name in own)
    message = (
        f"it reduces, and takes {small}, which may be smaller than what reaches it: make two steps of it, "
        "one that reduces and one that combines"
    )
    raise document.error(place, message)


def needs_own_size(step: Step, before: Sequence[Step], operands: Mapping[str, Operand]) -> bool:
    """Whether the size of a step's value follows from one that its chain computes before it becomes larger.

    Args:
        step: the step.
        before: the steps before it.
        operands: the operands.
    """
    return _needs_own_size(step, *_chain_of(before, operands))


def keeps_sizes(chain: Sequence[Step], earlier: Collection[str]) -> bool:
    """Whether no value of a chain follows in its size from one that is computed before it becomes larger.

    Args:
        chain: the chain.
        earlier: the values that may be larger than what it starts from.
    """
    return not any(_needs_own_size(s, chain[:n], earlier) for n, s in enumerate(chain) if n)


def _needs_own_size(step: Step, chain: Sequence[Step], earlier: Collection[str]) -> bool:
    """Return what `needs_own_size` does, for the steps of a chain before the step."""
    place = larger_at(chain, earlier)
    if place is None or _named(step).isdisjoint(_small(chain, earlier)):
        return False
    # A kind stands for a size: what is not full may be smaller than the chain.
    sizes, x = dict.fromkeys(earlier, Kind.FULL), Kind.SCALAR
    for other in chain[place:]:
        found = _size(other, sizes, x)
        sizes |= dict.fromkeys(other.parts, x)
        sizes[other.label] = found
        x = x if other.indexes else found  # the next step goes on from other values
    return _size(step, sizes, x) != Kind.FULL or _reduces_small(step, sizes, x)


def as_large(chain: Sequence[Step], steps: Sequence[Step]) -> set[str]:
    """Return the values that are as large as what a chain starts from: the parts of one tensor with its size.

    Args:
        chain: the chain.
        steps: the steps of the spec.
    """
    start = chain[0].label
    for cut in (step for step in steps if step.is_source and start in step.parts):
        sizes = {part: cut.settings[str(place)] for place, part in enumerate(cut.parts)}
        return {n for n, size in sizes.items() if size == sizes[start] != REST}
    return set()


def full_beside(chain: Sequence[Step], operands: Iterable[Operand]) -> set[str]:
    """Return the operands that may be larger than the value that a chain starts from: the full ones.

    Args:
        chain: the chain; if a product or x begins it, there are none.
        operands: the operands.
    """
    op, start = chain[0].op, chain[0].factors.get(OF)
    if op is None or op.torch or start is None or not start.is_step:
        return set()
    return full_operands(operands)


def full_operands(operands: Iterable[Operand]) -> set[str]:
    """Return the operands that are as large as x where nothing broadcasts them."""
    plain = (o for o in operands if o.dims is None and not (o.factor or o.whole))
    return {operand.name for operand in plain if operand.kind == Kind.FULL}


def _chain_of(
    before: Sequence[Step], operands: Mapping[str, Operand]
) -> tuple[Sequence[Step], set[str]]:
    """Return the last chain's steps, and what may be larger than what it starts from: the values before it.

    A chain that a product begins is as large as the input, for the steps that it can have.
    """
    first = next((n for n in range(len(before) - 1, 0, -1) if before[n].is_source), 0)
    own = {name for step in before[first:] for name in step.names}
    op = before[0].op if before else None
    given = {INPUT} if first or (op is not None and op.source and op.takes_only_x) else set()
    given |= {name for step in before[:first] for name in step.names}
    given |= full_beside(before[first:], operands.values()) if before else set()
    return before[first:], given - own - as_large(before[first:], before[:first])


def _small(chain: Sequence[Step], earlier: Collection[str]) -> set[str]:
    """Return the values that a chain computes before it becomes larger."""
    return {name for step in chain[: larger_at(chain, earlier)] for name in step.names}


def _reduces(step: Step) -> bool:
    return any(isinstance(part, Reduction) for part in parts(step.expr))


def _named(step: Step) -> set[str]:
    """Return the operands and values that a step names."""
    return {*step.tensors, *step.mentions}


def _size(step: Step, sizes: dict[str, Kind], x: Kind) -> Kind:
    """Return the size of a step's value."""
    return kind_of_formula(step.expr, _sizes_in(step, sizes | dict.fromkeys(step.parts, x), x))


def _reduces_small(step: Step, sizes: Mapping[str, Kind], x: Kind) -> bool:
    """Whether a step reduces what may be smaller than its chain."""
    of = _sizes_in(step, sizes, x)
    reduced = (part for part in parts(step.expr) if isinstance(part, Reduction))
    return any(kind_of_formula(sp.Tuple(*part.args), of) != Kind.FULL for part in reduced)


def _sizes_in(step: Step, sizes: Mapping[str, Kind], x: Kind) -> Callable[[sp.Symbol], Kind]:
    """Return the size of each symbol of a step's formula; a number and an operand have none of their own."""
    named = {slot: r.name for slot, r in step.operands.items() if isinstance(r, Ref)}
    own = {name: sizes.get(given, Kind.SCALAR) for name, given in named.items()}
    return lambda symbol: {"x": x, **own}.get(symbol.name, Kind.SCALAR)
