"""The shapes that sources of a model return, for its example inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch

from fusegen.chain import Chain
from fusegen.chain.layout import channel_from_end
from fusegen.program import Kind
from fusegen.spec.computed_size import ComputedSize
from fusegen.spec.cut import START, sizes_of
from fusegen.spec.factor import OF
from fusegen.spec.keys import REST
from fusegen.spec.model import Ref, Setting, Spec, Step

__all__ = [
    "CHANNELS",
    "SIZES",
    "WIDE",
    "Sizes",
    "after_source",
    "factor_shape",
    "number_of",
    "parts_of_shape",
    "shape_argument",
    "shapes_of",
    "whole_of",
    "with_width",
]

#: How many channels or columns there are, of rows and of images.
CHANNELS = {False: 256, True: 64}
#: The size of an image's dims after the channel.
WIDE = 32
#: Arguments by what a step takes them for; other sizes are numbers of channels or columns.
SIZES = {
    "kernel_size": 3,
    "stride": 2,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "groups": 1,
    "num_groups": 8,
}


class Sizes(NamedTuple):
    """Sizes of x that no argument says.

    Attributes:
        rows: the first.
        channels: the second, which of rows is the last.
        image: those after it.
    """

    rows: int
    channels: int
    image: int


def factor_shape(spec: Spec, step: Step, numbers: Mapping[str, int]) -> tuple[int, ...] | None:
    """Return the last two sizes of a parameter that a product takes, as it takes them."""
    parameters = {o.name: o.shape for o in spec.operands if o.factor and o.init is not None}
    for factor in step.factors.values():
        declared = parameters.get(factor.name)
        if isinstance(declared, tuple):
            sizes = [numbers[s] if isinstance(s, str) else s for s in declared][-2:]
            return tuple(reversed(sizes) if factor.transposed else sizes)
    return None


def after_source(
    spec: Spec,
    step: Step,
    start: tuple[int, ...],
    numbers: Mapping[str, int],
    values: Mapping[str, tuple[int, ...]],
    inputs: dict[Any, str],
) -> tuple[int, ...]:
    """Return the shape of a source's result; an input that it takes is added."""
    assert step.op is not None
    if step.op is START:
        return start
    if step.op.submodule is not None:
        return _after_module(spec, step, start, numbers)
    held = factor_shape(spec, step, numbers)
    if held is not None:
        return (*start[:-1], held[-1])
    for slot, factor in step.factors.items():
        if slot == OF:
            continue
        if factor.name in values:
            other = values[factor.name]
            return (*start[:-1], other[-2] if factor.transposed else other[-1])
        # An input: as many columns as there are rows, so that a product with values that belong to the rows
        # may follow, as in attention.
        sizes = (start[-1], start[-2])
        shape = [*start[:-2], *(reversed(sizes) if factor.transposed else sizes)]
        inputs.setdefault(factor.name, f"torch.randn({shape})")
        return (*start[:-1], start[-2])
    shape = [*start[:-2], start[-1], start[-1]]
    inputs.setdefault(step.label, f"torch.randn({shape})")
    return start


def number_of(setting: Setting | None, numbers: Mapping[str, int]) -> int:
    """Return a size that may be computed from int arguments."""
    if isinstance(setting, Ref):
        return setting.times * numbers[setting.name]
    if isinstance(setting, ComputedSize):
        return setting.number(numbers)
    assert isinstance(setting, int)
    return setting


def shapes_of(
    chain: Chain, numbers: Mapping[str, int], x_sizes: Sizes
) -> tuple[Sequence[int], Sequence[int], list[str]]:
    """Return the shapes of x and of the activation, and the texts of what the product takes beside x."""
    step, rank = chain.source, chain.layout.rank
    rows, usual_channels, image = x_sizes
    wide = [image] * max(rank - 2, 0)
    if step is None:
        channels = max([*_widths(chain, numbers)], default=usual_channels)
        shape = [rows, channels, *wide] if rank else [rows, channels]
        count, halved = chain.layout.partition.parts, chain.layout.halved
        if halved and halved != channel_from_end(rank):
            shape[halved] *= count
        elif halved:
            shape[halved] += -shape[halved] % count
        for place, size in _row(chain, numbers).items():
            shape[place] = size
        shape[-1] += -shape[-1] % chain.parts
        return shape, shape, []
    assert step.op is not None
    parameters = {o.name: o.shape for o in chain.spec.operands if o.factor and o.init is not None}
    for factor in step.factors.values():
        declared = parameters.get(factor.name)
        if isinstance(declared, tuple):
            sizes = [numbers[s] if isinstance(s, str) else s for s in declared]
            *_, first, last = reversed(sizes) if factor.transposed else sizes
            return [rows, first], [rows, last], []
    if step.op.submodule is None:
        columns = CHANNELS[False]
        beside = f"torch.randn([{rows}, {columns}, {columns}])"
        return [rows, WIDE, columns], [rows, WIDE, columns], [beside]
    usual = max([*_widths(chain, numbers)], default=usual_channels)
    x = with_width(step, (rows, usual, *wide), numbers)
    return x, _after_module(chain.spec, step, x, numbers), []


def with_width(step: Step, shape: Sequence[int], numbers: Mapping[str, int]) -> tuple[int, ...]:
    """Return a shape with as many channels or columns as a product takes, if it says so.

    A convolution takes channels, and a linear layer the last dim.
    """
    held = step.op.submodule if step.op else None
    width = step.settings.get(held.sized_by[0]) if held and held.operands else None
    if width is None:
        return tuple(shape)
    place = step.channel % len(shape)
    return tuple(number_of(width, numbers) if d == place else n for d, n in enumerate(shape))


def _after_module(
    spec: Spec, step: Step, x: tuple[int, ...], numbers: Mapping[str, int]
) -> tuple[int, ...]:
    """Return the shape of what a source's submodule returns."""
    assert step.op is not None and step.op.submodule is not None
    held = step.op.submodule
    given: dict[str, object] = {k: v for k, v in step.attributes.items() if k in held.keywords}
    value: object
    arguments = {a.name: a.default for a in spec.arguments}
    for key in (*held.sized_by, *held.geometry):
        value = step.settings.get(key, step.attributes.get(key))
        if isinstance(value, Ref) and value.name not in numbers:
            value = arguments[value.name] or shape_argument(value.name, spec.steps)
        if isinstance(value, tuple):
            given[key] = tuple(numbers[s] if isinstance(s, str) else s for s in value)
        elif _is_number(value, numbers):
            given[key] = number_of(value, numbers)
    with torch.device("meta"):
        made = getattr(torch.nn, held.module_for(step.dims).removeprefix("nn."))(**given)
    return tuple(made(torch.empty(x, device="meta")).shape)


def shape_argument(name: str, steps: Sequence[Step]) -> tuple[int, ...] | None:
    """Return sizes for a shape argument that a source takes for its kernel or its geometry, if one does."""
    for step in steps:
        for key, value in step.settings.items() if step.is_source else ():
            if isinstance(value, Ref) and value.name == name and key in SIZES:
                return (SIZES[key],) * (step.dims - 2)
    return None


def parts_of_shape(
    step: Step, shape: tuple[int, ...], numbers: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each part into which a step cuts a tensor of a shape.

    Raises:
        RuntimeError: as torch does, if the parts have not the tensor's size.
    """
    dim = step.attributes["dim"]
    assert isinstance(dim, int)
    sizes = [number_of(size, numbers) for size in sizes_of(step)]
    if REST in sizes:
        sizes[sizes.index(REST)] = shape[dim] - sum(size for size in sizes if size != REST)
    parts = torch.empty(shape, device="meta").split(sizes, dim)  # type: ignore[no-untyped-call] # torch says no types
    return {name: tuple(part.shape) for name, part in zip(step.parts, parts, strict=True)}


def whole_of(
    chain: Chain, name: str, shape: Sequence[int], numbers: Mapping[str, int]
) -> tuple[str, list[int]]:
    """Return the name and the shape of what an operand is a part of, or its own."""
    found = list(shape)
    for cut in (cut for cut in chain.spec.taken_apart if name in cut.names):
        sizes = [number_of(size, numbers) for size in cut.sizes] or [found[cut.dim]] * len(
            cut.names
        )
        found[cut.dim] = sum(found[cut.dim] if size == REST else size for size in sizes)
        return cut.whole, found
    return name, found


def _is_number(size: object, numbers: Mapping[str, int]) -> TypeGuard[Setting]:
    """Whether a setting is a size alone."""
    return isinstance(size, int | ComputedSize) or (isinstance(size, Ref) and size.name in numbers)


def _widths(chain: Chain, numbers: Mapping[str, int]) -> list[int]:
    """Return how many channels or columns the parameters of a chain without a product have."""
    found = []
    splitting = chain.spec.splitting
    split = splitting is not None and splitting.splits_channels
    parts = chain.layout.partition.parts if split else 1  # of what a tensor of one part is a part
    times = 1
    for step in chain.spec.steps:
        times = parts if step is splitting else times
        size = step.settings.get("features", ())
        if _is_number(size, numbers):
            found.append(times * number_of(size, numbers))
    held = {operand.name: operand.parts for operand in chain.operands}
    for operand in chain.spec.operands:
        if isinstance(operand.shape, tuple) and operand.kind.label in ("col", "channel"):
            sizes = [numbers[s] if isinstance(s, str) else s for s in operand.shape]
            found += [size * parts // held.get(operand.name, parts) for size in sizes]
    return found


def _row(chain: Chain, numbers: Mapping[str, int]) -> dict[int, int]:
    """Return the sizes of dims, counted from the end, that the spec says dim by dim: of a row, or of operands
    that list theirs."""
    shapes: list[object] = [step.settings.get("features") for step in chain.spec.steps]
    shapes += [o.shape for o in chain.spec.operands if o.kind is Kind.COL or o.dims is not None]
    return {
        place - len(shape): numbers[size] if isinstance(size, str) else size
        for shape in shapes
        if isinstance(shape, tuple) and chain.layout.rank >= 3
        for place, size in enumerate(shape)
        if size != 1
    }
