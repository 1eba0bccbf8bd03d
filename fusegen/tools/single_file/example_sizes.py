"""Example arguments and inputs of a model: what `get_init_inputs` and `get_inputs` return."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusegen.base.errors import UserError, nearest
from fusegen.chain import Chain, Chains
from fusegen.chain.chains import earlier_values, larger_operands
from fusegen.chain.layout import channel_from_end
from fusegen.spec.cut import CUT, START, sizes_of
from fusegen.spec.factor import OF
from fusegen.spec.keys import REST
from fusegen.spec.model import INPUT, Operand, Ref, Spec, Step
from fusegen.tools.single_file.example_shapes import (
    CHANNELS,
    SIZES,
    WIDE,
    Sizes,
    after_source,
    factor_shape,
    number_of,
    parts_of_shape,
    shape_argument,
    shapes_of,
    whole_of,
    with_width,
)

__all__ = ["Example", "example_of", "known_sizes"]

#: The size of the first dim of x: rows, or images.
_ROWS, _IMAGES = 128, 16


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


def known_sizes(chains: Chains, sizes: Mapping[str, int]) -> tuple[Sizes, dict[str, int]]:
    """Return the sizes of x, and the values of all int arguments by name.

    Args:
        chains: the chains of the model.
        sizes: those that are given: of int arguments by name, of "rows", the first dim of x, and of "image",
            those after the channel.

    Raises:
        UserError: if there is no such size.
    """
    spec = chains.spec
    known = ["rows", "image", *(a.name for a in spec.arguments if a.type == "int")]
    for name in sizes:
        if name not in known:
            raise UserError(f"--sizes {name}: {spec.name} has no such size{nearest(name, known)}")
    first = chains.pieces[0]
    images = (first.layout.rank if isinstance(first, Chain) else first.steps[0].dims) >= 3
    numbers: dict[str, int] = {}
    roles = _roles(spec.steps)
    for argument in spec.arguments:
        if argument.type == "int":
            default = argument.default if isinstance(argument.default, int) else None
            usual = SIZES.get(roles.get(argument.name, ""), CHANNELS[images])
            usual = usual if default is None else default
            numbers[argument.name] = sizes.get(argument.name, argument.only or usual)
    rows = sizes.get("rows", _IMAGES if images else _ROWS)
    return Sizes(rows, CHANNELS[images], sizes.get("image", WIDE)), numbers


def example_of(
    chains: Chains, sizes: Mapping[str, int], x_sizes: Sizes, numbers: Mapping[str, int]
) -> Example:
    """Return an example.

    Args:
        chains: the chains of the model.
        sizes: those that are given.
        x_sizes: the sizes of x that no argument says.
        numbers: the values of int arguments by name.

    Raises:
        UserError: if a step does not take them.
    """
    spec = chains.spec
    if len(chains.pieces) == 1:
        x, reached, further = shapes_of(chains.fused[0], numbers, x_sizes)
        inputs: dict[Any, str] = {INPUT: f"torch.randn({list(x)})"}
        inputs |= dict(enumerate(further))
        constant: set[object] = set()
        _add_operands(chains.fused[0], reached, numbers, (), inputs, constant)
        shapes = {step.label: reached for step in spec.steps}
    else:
        inputs, constant, shapes = _of_pieces(chains, numbers, x_sizes)
    given: list[str] = []
    for argument in spec.arguments:
        if argument.type == "int":
            if argument.default is None or argument.name in sizes:
                given.append(_named(given, spec.arguments, argument.name, numbers[argument.name]))
        elif argument.default is None:
            usual_text = {"float": "0.5", "bool": str(argument.only is not False)}
            shape_text = _shape_of(argument.name, spec.steps, shapes)
            given.append(usual_text.get(argument.type, shape_text))
    places = [place for place, name in enumerate(inputs) if name in constant]
    return Example(given, [*inputs.values()], places)


def _add_operands(
    chain: Chain,
    reached: Sequence[int],
    numbers: Mapping[str, int],
    known: Collection[str],
    inputs: dict[Any, str],
    constant: set[object],
) -> None:
    """Add what a chain takes as inputs of the model; those that get no gradient are constant too."""
    shapes = chain.operand_shapes(reached)
    parameters = [o.name for o in chain.spec.operands if o.init is not None]
    for operand in chain.operands:
        name, shape = whole_of(chain, operand.name, shapes[operand.name], numbers)
        if operand.owner is None and name not in (INPUT, *known, *parameters):
            if not (operand.differentiable or operand.integer or operand.mask):
                constant.add(name)
            made = f"torch.randn({shape})"
            if operand.integer:
                made = f"torch.randint({reached[channel_from_end(len(reached))]}, {shape})"
            elif operand.mask:
                made = f"torch.rand({shape}) < 0.5"
            inputs.setdefault(name, made)


def _of_pieces(
    chains: Chains, numbers: Mapping[str, int], x_sizes: Sizes
) -> tuple[dict[Any, str], set[object], dict[str, Sequence[int]]]:
    """Return the inputs of a model of several chains, following the shapes from one to the next.

    The third result is the shape that reaches the chain of each step.
    """
    spec, first = chains.spec, chains.pieces[0]
    inputs: dict[Any, str] = {}
    constant: set[object] = set()
    values: dict[str, tuple[int, ...]] = {}
    reached: dict[str, Sequence[int]] = {}
    shape: tuple[int, ...] = ()
    for piece in chains.pieces:
        own = piece.spec if isinstance(piece, Chain) else piece
        step = own.steps[0] if own.steps[0].is_source else None
        if piece is first:
            x = _start(spec, piece, numbers, x_sizes)
            values[INPUT] = shape = x
            inputs[INPUT] = f"torch.randn({list(x)})"
        if step is not None:
            if OF in step.factors and (name := step.factors[OF].name) not in values:
                declared = [o for o in spec.operands if o.name == name]
                beside = shape if step.op is START else values[INPUT]  # the last value, or x
                wide = with_width(_taking(spec, own, step), beside, numbers)
                values[name] = _along(declared, wide)
                if all(o.init is None for o in declared):
                    inputs[name] = f"torch.randn({list(values[name])})"
            start = values[step.factors[OF].name] if OF in step.factors else shape
            try:
                if step.op is CUT:
                    values |= parts_of_shape(step, start, numbers)
                    continue
                shape = after_source(spec, step, start, numbers, values, inputs)
            except RuntimeError as error:
                raise _no_such_sizes(step, start) from error
        if isinstance(piece, Chain):
            larger = larger_operands(piece, earlier_values(spec, piece))
            for name in (name for name in larger if name in values):
                try:
                    shape = tuple(torch.broadcast_shapes(shape, values[name]))  # type: ignore[no-untyped-call]
                except RuntimeError as error:
                    raise _no_such_sizes(own.steps[-1], values[name]) from error
            _add_operands(piece, shape, numbers, values, inputs, constant)
            reached |= {step.label: shape for step in own.steps}
            found = piece.output_shapes(shape)
            values |= found
            shape = found[own.steps[-1].label]
        values[own.steps[-1].label] = shape
    return inputs, constant, reached


def _no_such_sizes(step: Step, shape: Sequence[int]) -> UserError:
    """Return the error of a step that a shape of the example does not fit."""
    message = f"the example has no such sizes: {step.label} does not take {list(shape)}"
    return UserError(f"{message}; give others, such as --sizes image=8")


def _taking(spec: Spec, own: Spec, step: Step) -> Step:
    """Return the source that says how wide the operand is that a chain starts from: it, or a later one."""
    if step.op is not START:
        return step
    taking = (s for s in spec.steps if OF in s.factors and s.factors[OF].name in own.computed)
    return next(taking, step)


def _along(declared: Sequence[Operand], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape with size 1 along the dims that an operand does not list, if it lists some."""
    listed = next((o.dims for o in declared if o.dims is not None), None)
    if listed is None:
        return shape
    return tuple(n if d in {i % len(shape) for i in listed} else 1 for d, n in enumerate(shape))


def _start(
    spec: Spec, piece: Chain | Spec, numbers: Mapping[str, int], x_sizes: Sizes
) -> tuple[int, ...]:
    """Return the shape of x of a model of several chains."""
    if isinstance(piece, Chain):
        return tuple(shapes_of(piece, numbers, x_sizes)[0])
    step, (rows, channels, image) = piece.steps[0], x_sizes
    wide = [image] * max(step.dims - 2, 0)
    if step.op is CUT:
        return _whole(step, (rows, channels, *wide), numbers)
    held = factor_shape(spec, step, numbers)
    return with_width(step, (rows, channels if held is None else held[0], *wide), numbers)


def _whole(step: Step, shape: tuple[int, ...], numbers: Mapping[str, int]) -> tuple[int, ...]:
    """Return a shape with as many elements along the dim of parts as these have."""
    sizes = [number_of(size, numbers) for size in sizes_of(step)]
    known = sum(size for size in sizes if size != REST)
    dim = step.attributes["dim"]
    assert isinstance(dim, int)
    whole = known + max(shape[dim], 1) if REST in sizes else known
    return tuple(whole if d == dim else size for d, size in enumerate(shape, -len(shape)))


def _roles(steps: Sequence[Step]) -> dict[str, str]:
    """Return what steps take each argument for, such as "kernel_size"."""
    found: dict[str, str] = {}
    for step in steps:
        for key, value in (*step.settings.items(), *step.attributes.items()):
            if isinstance(value, Ref) and value.is_argument:
                found.setdefault(value.name, key)
    return found


def _shape_of(name: str, steps: Sequence[Step], reached: Mapping[str, Sequence[int]]) -> str:
    """Return the text of a shape argument: what a source or a norm takes it for."""
    if given := shape_argument(name, steps):
        return repr(given)
    for step in steps:
        size, dim = step.settings.get("features"), step.attributes.get("dim")
        if isinstance(size, Ref) and size.name == name:
            x = reached[step.label]
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
