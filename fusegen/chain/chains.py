"""Turns a spec into its chains, and into the sources between them that torch computes alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from fusegen.base.errors import SpecError
from fusegen.chain.chain import Chain, derive
from fusegen.chain.mode import Mode
from fusegen.chain.segment import Segment
from fusegen.program import Program, Value
from fusegen.spec.by_element import by_element
from fusegen.spec.chains import chains_of, named_by
from fusegen.spec.cut import START
from fusegen.spec.model import INPUT, Spec
from fusegen.spec.small_values import as_large, full_beside, full_operands, keeps_sizes, larger_at

__all__ = ["Chains", "derive_all"]


@dataclass(frozen=True)
class Chains:
    """Everything that is derived from a spec with any number of chains.

    Args:
        spec: the spec.
        pieces: its chains in order; a Spec is a chain of a source alone, which needs no kernel.
    """

    spec: Spec
    pieces: tuple[Chain | Spec, ...]

    @cached_property
    def fused(self) -> tuple[Chain, ...]:
        """The chains that have kernels."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Chain))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments of all chains."""
        return tuple(segment for chain in self.fused for segment in chain.segments)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes of all segments."""
        return tuple(mode for chain in self.fused for mode in chain.modes)

    @property
    def operators(self) -> Iterator[tuple[Program, tuple[Value, ...]]]:
        """The program of each operator, and the values that the forward pass saved for it."""
        for chain in self.fused:
            yield from chain.operators

    def describe(self) -> str:
        """Return every program, as text, below the steps that torch computes."""
        if len(self.pieces) == 1:
            return self.fused[0].describe()
        texts = []
        for piece in self.pieces:
            spec = piece if isinstance(piece, Spec) else piece.spec
            if spec.steps[0].is_source and spec.steps[0].op is not START:
                texts.append(f"# torch: {spec.steps[0].text}")
            if isinstance(piece, Chain):
                texts.append(f"# {spec.function}\n\n{piece.describe()}")
        return "\n\n".join(texts)


def derive_all(spec: Spec) -> Chains:
    """Derive the programs and kernels of each chain of a spec.

    Raises:
        SpecError: a chain has a form that is not supported, or no chain has a step to fuse.
    """
    specs = chains_of(spec)
    if len(specs) == 1:
        return Chains(spec, (derive(spec),))
    pieces = tuple(one if alone(one) else derive(one) for one in specs)
    made = Chains(spec, pieces)
    if not made.fused:
        message = "torch computes every step of it: there is nothing to fuse"
        raise SpecError(message, spec.path, spec.steps[0].line)
    return made


def alone(spec: Spec) -> bool:
    """Whether a chain is a source alone: torch computes it with its bias."""
    return len(spec.steps) == 1 and spec.steps[0].is_source


def earlier_values(spec: Spec, chain: Chain) -> Collection[str]:
    """Return what may be larger than what a chain starts from: earlier values, the input, full operands."""
    steps = chain.spec.steps
    own = {name for step in steps for name in step.names}
    found = spec.computed - own - as_large(steps, spec.steps)
    given = {INPUT} if steps[0].is_source and INPUT not in own else set()
    # Where steps need the size of what a chain starts from, calls with larger values are refused.
    beside = (full_operands(spec.operands), full_beside(steps, spec.operands))
    larger = (found | given | full for full in beside)
    return next((names for names in larger if keeps_sizes(steps, names)), found)


def smaller_outputs(chain: Chain, earlier: Collection[str]) -> list[str]:
    """Return the values that a chain returns and computes before what reaches it becomes larger."""
    steps = chain.spec.steps
    first = larger_at(steps, earlier)
    before = {name for step in steps[:first] for name in step.names}
    return [name for name in chain.spec.outputs if first is not None and name in before]


def larger_operands(chain: Chain, earlier: Collection[str]) -> list[str]:
    """Return the earlier values that may be larger than what reaches a chain.

    They are those of the step at which it becomes larger, and of the steps after it as long as these compute
    each element by itself, and no value has another use: that would have the size of the first.
    """
    spec, found = chain.spec, dict[str, None]()
    place = larger_at(spec.steps, earlier)
    if place is None:
        return []
    named = {n for s in spec.steps for n in named_by(s)} | spec.further_outputs
    for number, step in enumerate(spec.steps[place:]):
        if number and not by_element(step):
            break
        found |= dict.fromkeys(name for name in step.tensors if name in earlier)
        if not by_element(step) or not named.isdisjoint(step.names):
            break
    return [*found]
