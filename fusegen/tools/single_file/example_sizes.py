"""Example arguments and inputs of a chain's model: what `get_init_inputs` and `get_inputs` return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fusegen.base.errors import UserError, nearest
from fusegen.chain import Chain
from fusegen.chain.layout import channel_from_end
from fusegen.program import Kind
from fusegen.spec.model import INPUT, Ref, Setting, Step

__all__ = ["Example", "example_of"]

#: The size of the first dim of x: rows, or images. An image is this large along each of its dims.
_ROWS, _IMAGES, _WIDE = 128, 16, 32
#: Arguments by what a step takes them for; other sizes are numbers of channels or columns.
_SIZES = {
    "kernel_size": 3,
    "stride": 2,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "groups": 1,
}
_SIZES |= {"num_groups": 8}
_CHANNELS = {False: 256, True: 64}  # of rows, of images


@dataclass(frozen=True)
class Example:
    """Python texts.

    Args:
        arguments: the arguments of the constructor that have no default.
        inputs: the tensors that the model is called with.
        constant: the inputs that get no gradient, by their index.
    """

    arguments: list[str]
    inputs: list[str]
    constant: list[int]


def example_of(chain: Chain, sizes: Mapping[str, int]) -> Example:
    """Return an example.

    Args:
        chain: the chain.
        sizes: values of int arguments by name, and of "rows", the first dim of x.

    Raises:
        UserError: if there is no such argument.
    """
    spec = chain.spec
    known = ["rows", *(a.name for a in spec.arguments if a.type == "int")]
    for name in sizes:
        if name not in known:
            raise UserError(f"--sizes {name}: {spec.name} has no such size{nearest(name, known)}")
    images = chain.layout.rank >= 3
    numbers: dict[str, int] = {}
    roles = _roles(spec.steps)
    for argument in spec.arguments:
        if argument.type == "int":
            default = argument.default if isinstance(argument.default, int) else None
            usual = _SIZES.get(roles.get(argument.name, ""), _CHANNELS[images])
            usual = usual if default is None else default
            numbers[argument.name] = sizes.get(argument.name, argument.only or usual)
    rows = sizes.get("rows", _IMAGES if images else _ROWS)
    x, reached, further = _shapes(chain, numbers, rows)
    shapes = chain.operand_shapes(reached)
    inputs = [f"torch.randn({list(x)})", *further]
    constant: list[int] = []
    for operand in chain.operands:
        if operand.owner is None and operand.name != INPUT:
            if not (operand.differentiable or operand.integer or operand.mask):
                constant.append(len(inputs))
            shape = list(shapes[operand.name])
            made = f"torch.randn({shape})"
            if operand.integer:
                made = f"torch.randint({reached[channel_from_end(len(reached))]}, {shape})"
            elif operand.mask:
                made = f"torch.rand({shape}) < 0.5"
            inputs.append(made)
    given: list[str] = []
    for argument in spec.arguments:
        if argument.type == "int":
            if argument.default is None or argument.name in sizes:
                given.append(_named(given, spec.arguments, argument.name, numbers[argument.name]))
        elif argument.default is None:
            usual_text = {"float": "0.5", "bool": str(argument.only is not False)}
            shape_text = _shape_of(argument.name, spec.steps, reached)
            given.append(usual_text.get(argument.type, shape_text))
    return Example(given, inputs, constant)


def _roles(steps: Sequence[Step]) -> dict[str, str]:
    """Return what steps take each argument for, such as "kernel_size"."""
    found: dict[str, str] = {}
    for step in steps:
        for key, value in (*step.settings.items(), *step.attributes.items()):
            if isinstance(value, Ref) and value.is_argument:
                found.setdefault(value.name, key)
    return found


def _number(setting: Setting | None, numbers: Mapping[str, int]) -> int:
    if isinstance(setting, Ref):
        return setting.times * numbers[setting.name]
    assert isinstance(setting, int)
    return setting


def _shapes(
    chain: Chain, numbers: Mapping[str, int], rows: int
) -> tuple[Sequence[int], Sequence[int], list[str]]:
    """Return the shapes of x and of the activation, and the texts of what the product takes beside x."""
    step, rank = chain.source, chain.layout.rank
    value: object
    wide = [_WIDE] * max(rank - 2, 0)
    if step is None:
        channels = max([*_widths(chain, numbers)], default=_CHANNELS[rank >= 3])
        shape = [rows, channels, *wide] if rank else [rows, channels]
        if chain.layout.halved and chain.layout.halved != channel_from_end(rank):
            shape[chain.layout.halved] *= 2
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
        columns = _CHANNELS[False]
        beside = f"torch.randn([{rows}, {columns}, {columns}])"
        return [rows, _WIDE, columns], [rows, _WIDE, columns], [beside]
    held = step.op.submodule
    given: dict[str, object] = {}
    arguments = {a.name: a.default for a in chain.spec.arguments}
    shapes = {name: default for name, default in arguments.items() if isinstance(default, tuple)}
    for key in (*held.sized_by, *held.geometry):
        value = step.settings.get(key)
        if isinstance(value, Ref) and value.name in shapes:
            value = shapes[value.name]
        if isinstance(value, tuple):
            given[key] = value
        elif isinstance(value, int) or (isinstance(value, Ref) and value.name in numbers):
            given[key] = _number(value, numbers)
    width = step.settings.get(held.sized_by[0]) if held.operands else None
    usual = max([*_widths(chain, numbers)], default=_CHANNELS[rank >= 3])
    x = [rows, usual if width is None else _number(width, numbers), *wide]
    with torch.device("meta"):
        made = getattr(torch.nn, held.module_for(step.dims).removeprefix("nn."))(**given)
    return x, tuple(made(torch.empty(x, device="meta")).shape), []


def _widths(chain: Chain, numbers: Mapping[str, int]) -> list[int]:
    """Return how many channels or columns the parameters of a chain without a product have."""
    found = []
    for step in chain.spec.steps:
        size = step.settings.get("features", ())
        if isinstance(size, int) or (isinstance(size, Ref) and size.name in numbers):
            found.append(_number(size, numbers))
    for operand in chain.spec.operands:
        if isinstance(operand.shape, tuple) and operand.kind.label in ("col", "channel"):
            found += [numbers[s] if isinstance(s, str) else s for s in operand.shape]
    return found


def _row(chain: Chain, numbers: Mapping[str, int]) -> dict[int, int]:
    """Return the sizes of the dims of a row, counted from the end, that the spec says dim by dim."""
    shapes: list[object] = [step.settings.get("features") for step in chain.spec.steps]
    shapes += [operand.shape for operand in chain.spec.operands if operand.kind is Kind.COL]
    return {
        place - len(shape): numbers[size] if isinstance(size, str) else size
        for shape in shapes
        if isinstance(shape, tuple) and chain.layout.rank >= 3
        for place, size in enumerate(shape)
        if size != 1
    }


def _shape_of(name: str, steps: Sequence[Step], x: Sequence[int]) -> str:
    """Return the text of a shape argument: the sizes of a row, if a norm takes it so."""
    for step in steps:
        size, dim = step.settings.get("features"), step.attributes.get("dim")
        if isinstance(size, Ref) and size.name == name:
            return repr(tuple(x[-len(dim) :] if isinstance(dim, tuple) else x[-1:]))
    return "(1,)"


def _named(given: Sequence[str], arguments: Sequence[object], name: str, value: int) -> str:
    """Return an argument's text: by place; those after one that is left out cannot be given so."""
    place = [getattr(a, "name", "") for a in arguments].index(name)
    if place != len(given):
        raise UserError(
            f"--sizes {name}: it comes after an argument with a default, and get_init_inputs lists "
            "arguments by place; give the others in the spec"
        )
    return str(value)
