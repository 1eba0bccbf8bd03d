"""Accesses: how a value of a program lies in a tensor that it is read from, or written to.

A tensor may vary along fewer axes than the value, as one with a number for each channel does, and it may hold
several values as parts of its rows. The adjoint of an access is the same access of another tensor: a gradient
lies as what it is the gradient of. So it is a sum over the axes that the tensor lacks, which a kernel adds up
as it writes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fusegen.atoms.halves import Partition
from fusegen.program.kind import Kind

__all__ = ["SECOND", "WHOLE", "Access", "Stored", "ending"]

#: The suffix of a second half's name.
SECOND = "_half"
#: A row in one part.
WHOLE = Partition(1)
#: The type that a tensor's numbers are stored in: x's dtype, the type in which kernels compute (float32 where
#: x has 16 bits), or int64.
Stored = Literal["x", "computed", "int64"]


def ending(place: int) -> str:
    """Return the suffix of the name of a tensor's part: none for the first one."""
    return ("", SECOND)[place] if place < 2 else f"_part{place}"


@dataclass(frozen=True)
class Access:
    """How a value lies in a tensor.

    If the tensor has several parts, it has a dim that is `count` times as long as the activation's. Where
    that has n columns, column j of the value is column `place * n + j` of the tensor. If its step is 2, it
    is column `place + 2 * j`: then the columns of two parts alternate. All parts are inputs of a program. If
    one is an output, so are the others.

    Args:
        tensor: the tensor's name, which is also that of the first part.
        kind: the axes that the tensor varies along; the value is broadcast along others.
        partition: how the tensor's rows are cut into parts.
        place: the number of the part.
        stored: the type of its numbers.
    """

    tensor: str
    kind: Kind
    partition: Partition = WHOLE
    place: int = 0
    stored: Stored = "x"

    @property
    def count(self) -> int:
        """The number of parts of the tensor."""
        return self.partition.parts

    @property
    def step(self) -> int:
        """How far apart the columns of the value are in the tensor."""
        return self.partition.step(self.place)

    @property
    def name(self) -> str:
        """The name of the value that lies so."""
        return f"{self.tensor}{ending(self.place)}"

    def parts(self, tensor: str) -> tuple[Access, ...]:
        """Return the access of each part of another tensor whose parts lie as this one's."""
        return tuple(replace(self, tensor=tensor, place=place) for place in range(self.count))
