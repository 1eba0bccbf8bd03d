"""Random operands for a call of a chain."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fusegen.chain import Chain

#: The share of a mask that is true: no row is likely to be masked as a whole.
_MASKED = 0.25


def random_operands(
    chain: Chain,
    x: Tensor,
    generator: torch.Generator,
    ones: Mapping[str, Collection[int]] | None = None,
) -> dict[str, Tensor]:
    """Return random operands for `x`, by name, in the order of `apply`.

    All are in [0.5, 1.5), since variances are positive; classes are valid columns, and masks are true at few
    places.

    Args:
        chain: the chain.
        x: the activation.
        generator: draws the numbers, on its device.
        ones: for operands that are broadcast, the dims in which they have size 1.
    """
    shapes = chain.operand_shapes(x.shape)
    for name, dims in (ones or {}).items():
        shapes[name] = tuple(1 if d in dims else n for d, n in enumerate(shapes[name]))
    found: dict[str, Tensor] = {}
    for segment, reached in zip(chain.segments, chain.reached(x.shape), strict=True):
        half = segment.layout.half(reached)
        classes = math.prod(half[dim] for dim in segment.layout.columns)
        for operand in segment.operands:
            if operand.handed or operand.name in found:
                continue
            shape = shapes[operand.name]
            if operand.integer:
                drawn = torch.randint(
                    max(classes, 1), shape, generator=generator, device=generator.device
                )
                found[operand.name] = drawn.to(x.device)
                continue
            drawn = torch.rand(
                shape, generator=generator, dtype=torch.float64, device=generator.device
            )
            masked = (drawn < _MASKED).to(x.device)
            dtype = torch.promote_types(x.dtype, torch.float32) if operand.float32 else x.dtype
            number = drawn.add(0.5).to(x.device, dtype)
            found[operand.name] = masked if operand.mask else number
    return {name: found[name] for name in shapes}
