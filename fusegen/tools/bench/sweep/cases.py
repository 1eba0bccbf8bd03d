"""Draws cases: a spec at one shape, in one dtype and memory format. A direction of a case is a cell."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from fusegen.base.errors import UserError
from fusegen.tools.bench.cells import one_of
from fusegen.tools.bench.sweep.shapes import draw_shape
from fusegen.tools.bench.sweep.specs import DrawnSpec, draw_spec

#: The cells for each spec: a spec is a compilation of a minute, a cell is seconds.
CELLS_A_SPEC = 6
DTYPES = ("float32", "bfloat16", "float16")
#: The sizes of x, in megabytes, by default: beyond a GPU's caches; on a CPU beyond its second level.
MEGABYTES = {"cuda": (64.0, 512.0), "cpu": (4.0, 32.0)}


@dataclass(frozen=True)
class Format:
    """How x lies in memory.

    Args:
        name: "contiguous"; "channels_last"; "transposed" (the two dims before the columns change places, as
            heads and positions do); "chunk" (one of some equal parts of a wider tensor); or "offset" (all but
            the first column or channel of a wider tensor).
        parts: of how many parts a chunk is one.
        place: which of them, from 0.
    """

    name: str = "contiguous"
    parts: int = 1
    place: int = 0

    def __str__(self) -> str:
        return f"chunk {self.place + 1} of {self.parts}" if self.name == "chunk" else self.name


@dataclass(frozen=True)
class Case:
    """A spec at one shape.

    Args:
        index: its number.
        spec: the spec.
        shape: of x.
        dtype: of x.
        format: how x lies in memory.
        groups: the number of groups, if the spec has groups.
        ones: for each operand that is broadcast, the dims in which it has size 1.
        directions: what is timed.
    """

    index: int
    spec: DrawnSpec
    shape: tuple[int, ...]
    dtype: str
    format: Format
    groups: int | None
    directions: tuple[str, ...]
    ones: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The case in one line."""
        shape = "x".join(map(str, self.shape))
        return f"{self.spec.name} {self.spec.form} {self.dtype} {shape} {self.format}"


@dataclass(frozen=True)
class Draw:
    """What is drawn.

    Args:
        seed: the seed.
        cells: how many cells.
        megabytes: the least and the largest size of x.
        dtypes: the dtypes to choose from.
        directions: the directions of each case.
    """

    seed: int
    cells: int
    megabytes: tuple[float, float]
    dtypes: tuple[str, ...] = DTYPES
    directions: tuple[str, ...] = ("forward", "backward")

    def specs(self) -> list[DrawnSpec]:
        """Return the specs."""
        count = -(-self.cells // CELLS_A_SPEC)
        return [draw_spec(self.seed, index, self.dtypes) for index in range(count)]

    def cases(self) -> list[Case]:
        """Return the cases; the specs take turns, so that a run that ends early has all of them."""
        specs, left = self.specs(), self.cells
        found: list[Case] = []
        while left > 0:
            index = len(found)
            directions = self.directions[:left]
            found.append(self._case(index, specs[index % len(specs)], directions))
            left -= len(directions)
        return found

    def _case(self, index: int, spec: DrawnSpec, directions: tuple[str, ...]) -> Case:
        rng = random.Random(f"{self.seed}/case/{index}")
        dtype = rng.choice(spec.dtypes)
        low, high = self.megabytes
        size = low * (high / low) ** rng.random()
        elements = max(1, int(size * 1e6) // torch.empty(0, dtype=getattr(torch, dtype)).itemsize)
        shape, groups = draw_shape(spec, rng, elements)
        ones = {}
        for name in spec.broadcastable:
            if rng.random() < 0.4 and len(shape) > 1:
                ones[name] = tuple(
                    sorted(rng.sample(range(len(shape) - 1), rng.randint(1, len(shape) - 1)))
                )
        lies = _format(rng, spec, shape)
        return Case(index, spec, shape, dtype, lies, groups, directions, ones)


def _format(rng: random.Random, spec: DrawnSpec, shape: Sequence[int]) -> Format:
    """Return a memory format; of images nearly half are in channels-last."""
    draw = rng.random()
    if spec.rank and draw < 0.45:
        return Format("channels_last")
    if len(shape) > 2 and draw < 0.2:
        return Format("transposed")
    if draw < 0.7:
        return Format()
    if draw < 0.9:
        parts = rng.choice((2, 3))
        return Format("chunk", parts, rng.randrange(parts))
    return Format("offset")


def parse_megabytes(text: str | None, device: str) -> tuple[float, float]:
    """Return the least and the largest size of "64:512", or the device's without a text.

    Raises:
        UserError: where the text says something else.
    """
    if text is None:
        return MEGABYTES[device]
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low = high = 0.0
    if not 0 < low <= high < float("inf"):
        raise UserError(f"--megabytes {text}: expected LOW:HIGH, such as 64:512")
    return low, high


def parse_dtypes(dtypes: Sequence[str]) -> tuple[str, ...]:
    """Return the dtypes to draw from; all of them if none is given.

    Raises:
        UserError: if one is not among them.
    """
    return tuple(one_of("--random --dtype", list(dict.fromkeys(dtypes)), DTYPES)) or DTYPES
