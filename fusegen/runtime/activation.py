"""What a generated chain says of its activation, and the checks that follow from it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fusegen.runtime.operators import half_shape


class Activation:
    """The activation of a chain: how its dims are read, and what the chain refuses.

    Args:
        rank: the number of dims that x must have, or 0 for any.
        columns: the first and the last dim along which a row runs, counted from the end.
        grouped: whether these dims are cut into groups, and a row is one of them.
        halved: the dim along which x has two halves or more parts, counted from the end; 0 if it has none.
            Operands that vary along that dim are as long as one part, or as so many as they say.
        partition: how many parts there are, and whether the columns of the first two alternate.
        name: what messages call it; a segment of a longer chain has another word than x.
        broadcasters: the operands whose shape x is broadcast to, by their index, if the activation is larger
            than x. x itself then is the first operand, of kind "row".
        several_values: whether a row of one value is refused, or a batch with one value per group.
        indexes: whether the chain gives numbers of columns, so that a row must have one, and no more than
            float32 counts.
        sized: the dims, counted from the end, along which a value is as large as the activation by some
            operands alone, with the names of these: a call must pass one of them as large.
    """

    def __init__(
        self,
        rank: int = 0,
        columns: tuple[int, int] = (-1, -1),
        grouped: bool = False,
        halved: int = 0,
        partition: tuple[int, bool] = (2, False),
        name: str = "x",
        broadcasters: tuple[int, ...] = (),
        several_values: bool = False,
        indexes: bool = False,
        sized: tuple[tuple[int, tuple[str, ...]], ...] = (),
    ) -> None:
        self.rank, self.columns, self.grouped = rank, columns, grouped
        self.halved, self.partition, self.parts = halved, partition, partition[0]
        self.name, self.broadcasters = name, broadcasters
        self.several_values, self.indexes, self.sized = several_values, indexes, sized

    def check(self, package: str, x: Tensor, groups: int) -> None:
        """Refuse sizes that no kernel can compute.

        Raises:
            ValueError: groups do not divide the channels, or a row has too few values, or too many to number.
        """
        if self.grouped and (
            groups < 1 or half_shape(x.shape, self.halved, self.parts)[1] % groups
        ):
            raise ValueError(
                f"{package}: {self.name}: expected channels that {groups} groups divide, "
                f"got {half_shape(x.shape, self.halved, self.parts)[1]}"
            )
        if self.several_values and self._values(x, groups) == 1:
            raise ValueError(
                f"{package}: {self.name}: expected more than one value to normalise, got shape "
                f"{tuple(x.shape)}"
            )
        if self.indexes:
            self._check_indexes(package, x)

    def values_of_channel(self, package: str, x: Tensor) -> int:
        """Return from how many values the statistics of a channel come.

        Raises:
            ValueError: it is only one.
        """
        shape = half_shape(x.shape, self.halved, self.parts) if self.halved else x.shape
        values = math.prod((shape[0], *shape[2:]))
        if values == 1:
            raise ValueError(
                f"{package}: {self.name}: expected more than one value per channel in training, "
                f"got shape {tuple(x.shape)}"
            )
        return values

    def _check_indexes(self, package: str, x: Tensor) -> None:
        """Refuse rows whose columns have no numbers, or numbers that kernels would round."""
        columns = self._values(x, 1)
        most = 2**53 if x.dtype is torch.float64 else 2**24
        if not 1 <= columns <= most:
            remedy = "" if columns < 1 else "; convert x to float64"
            raise ValueError(
                f"{package}: {self.name}: expected rows of 1 to {most:,} elements to number, got "
                f"{columns:,}{remedy}"
            )

    def _values(self, x: Tensor, groups: int) -> int:
        """Return how many values a statistic is computed from; torch counts those of a group in the whole
        batch."""
        if self.grouped:
            return math.prod(half_shape(x.shape, self.halved, self.parts)) // groups
        first, last = self.columns
        return math.prod(half_shape(x.shape, self.halved, self.parts)[first : last + 1 or None])
