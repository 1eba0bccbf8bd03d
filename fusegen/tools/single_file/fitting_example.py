"""An example whose sizes fit: torch computes the model with them, without memory.

Nothing in a spec says how large x is where a later product or an operand alone settles it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from fusegen.base.errors import UserError
from fusegen.chain import Chains
from fusegen.spec.computed_size import ComputedSize
from fusegen.spec.model import Ref
from fusegen.tools.single_file.example_shapes import Sizes, number_of
from fusegen.tools.single_file.example_sizes import Example, example_of, known_sizes

__all__ = ["fitting_example"]

#: Returns the original of the model, for arguments of its constructor.
Original = Callable[..., nn.Module]
#: How many examples are tried.
_TRIES = 200


def fitting_example(
    chains: Chains, sizes: Mapping[str, int], original_of: Callable[[Example], Original]
) -> Example:
    """Return the first example that fits: with the usual sizes, or with such as the spec has.

    Args:
        chains: the chains of the model.
        sizes: those that are given, which stay.
        original_of: returns the class of the original; called once.

    Raises:
        UserError: if a size is unknown, or none fits.
    """
    usual, numbers = known_sizes(chains, sizes)
    original: Original | None = None
    first: Exception | None = None
    for _, x_sizes in zip(range(_TRIES), _candidates(chains, sizes, usual, numbers), strict=False):
        try:
            example = example_of(chains, sizes, x_sizes, numbers)
            original = original or original_of(example)
            _compute(original, example)
            return example
        except (UserError, RuntimeError, ValueError) as error:
            first = first or error
    if isinstance(first, UserError):
        raise first
    message = f"the example has no such sizes: {str(first).splitlines()[0]}"
    raise UserError(f"{message}; give others, such as --sizes image=8") from first


def _compute(original: Original, example: Example) -> None:
    """Compute the model's value at the example, of which only the shapes are known."""
    with torch.device("meta"), torch.no_grad():
        names = {"torch": torch}
        arguments, inputs = (
            [eval(text, names) for text in texts]  # noqa: S307 # as the file has them
            for texts in (example.arguments, example.inputs)
        )
        try:
            original(*arguments).eval()(*inputs)
        except NotImplementedError:
            return  # torch knows no shapes of an op


def _candidates(
    chains: Chains, sizes: Mapping[str, int], usual: Sizes, numbers: Mapping[str, int]
) -> Iterator[Sizes]:
    """Yield sizes to try: first the usual ones, then others for an image, for channels, and for both."""
    yield usual
    others = _mentioned(chains, numbers)
    images = [] if "image" in sizes else others
    yield from (usual._replace(image=image) for image in images)
    yield from (usual._replace(channels=channels) for channels in others)
    for channels in others:
        yield from (usual._replace(channels=channels, image=image) for image in images)


def _mentioned(chains: Chains, numbers: Mapping[str, int]) -> list[int]:
    """Return the sizes that a spec mentions, and what is left of each if it is cut; the largest first."""
    found: set[int] = set()
    for step in chains.spec.steps:
        for value in (*step.settings.values(), *step.attributes.values()):
            is_size = isinstance(value, ComputedSize) or (
                isinstance(value, Ref) and value.name in numbers
            )
            if is_size:
                found.add(number_of(value, numbers))  # type: ignore[arg-type] # it is a size
            elif isinstance(value, int) and not isinstance(value, bool):
                found.add(value)
    for operand in chains.spec.operands:
        if isinstance(operand.shape, tuple):
            found |= {numbers[s] if isinstance(s, str) else s for s in operand.shape}
    found |= {size // parts for size in found for parts in (2, 3, 4) if size % parts == 0}
    return [*sorted((size for size in found if size > 1), reverse=True), 1]
