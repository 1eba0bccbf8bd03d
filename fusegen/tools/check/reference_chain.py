"""A chain by its own programs, in float64 on activations of any dims: the computation of the kernels, step by
step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fusegen.chain import Chain, Mode, Segment
from fusegen.chain.layout import CHANNEL_DIM
from fusegen.chain.segment_program import SHAPE
from fusegen.program import Access, Input, Kind, Output, Program
from fusegen.program.presence import is_presence
from fusegen.tools.check.reference_program import Axes, run_program
from fusegen.tools.check.rounding import EXACT, Rounding

__all__ = ["run_programs"]


def run_programs(
    chain: Chain,
    x: Tensor,
    operands: Mapping[str, Tensor],
    numbers: Mapping[str, float],
    *,
    training: bool = False,
    seed: int = 0,
    rounding: Rounding = EXACT,
) -> Tensor | tuple[Tensor, ...]:
    """Return the chain's value or outputs, differentiable once: the backward programs compute the gradient.

    Args:
        chain: the chain.
        x: the activation.
        operands: the tensors of `apply`, by name.
        numbers: the numbers of `apply`, by name, among them how many groups there are.
        training: the mode.
        seed: the seed of the random numbers.
        rounding: applied to each operation's value.
    """
    named: dict[str, Tensor] = {}
    made: list[Tensor] = []
    used: list[Tensor] = []
    numbers = {**numbers, **{chain.spec.code(name): number for name, number in numbers.items()}}
    for place, (segment, shape) in enumerate(
        zip(chain.segments, chain.reached(x.shape), strict=True)
    ):
        named |= dict.fromkeys(segment.span.begins, x)
        mode = next(m for m in segment.modes if m.name in ("same", "train" if training else "eval"))
        form = _Form(segment, shape, numbers)
        last = place + 1 == len(chain.segments)
        call = _Call(segment, mode, form, numbers, seed, rounding, later=place > 0, last=last)
        given = {**operands, **named, "x": x}
        named_as = {"x": "x", **{o.code: o.name for o in segment.operands}}
        tensors = [given[name] for name in named_as.values()]
        found = _Segment.apply(call, [*named_as], *tensors)  # type: ignore[no-untyped-call]
        made, used = [*made, *found], [*used, *tensors]
        x, named = found[0], {**named, **dict(zip(segment.span.returned, found[1:], strict=True))}
        named[segment.steps[-1].label] = x
    outputs = tuple(named[label] for label in chain.spec.outputs) or (x,)
    for value in made:
        uses = sum(value is other for other in (*used, *outputs))
        if uses > 1 and value.requires_grad:  # autograd adds their gradients
            value.register_hook(rounding.stored)  # type: ignore[no-untyped-call] # torch says no types
    return outputs if chain.spec.outputs else x


class _Segment(torch.autograd.Function):
    """One segment: its forward program, and its backward program for autograd."""

    @staticmethod
    def forward(ctx: Any, call: _Call, names: list[str], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call, ctx.names = call, names
        found = call.value(dict(zip(names, tensors, strict=True)))
        ctx.save_for_backward(*tensors, *call.kept(found))
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        count = len(ctx.names)
        given = dict(zip(ctx.names, ctx.saved_tensors[:count], strict=True))
        found = ctx.call.gradients(given, ctx.saved_tensors[count:], cotangents)
        return None, None, *(found.get(name) for name in ctx.names)


@dataclass(frozen=True)
class _Form:
    """How a segment's tensors broadcast: unchanged, or with the channels as [groups, channels of a group].

    Args:
        segment: the segment.
        shape: its activation's shape, with all parts where it has several.
        numbers: the numbers of the call.
    """

    segment: Segment
    shape: tuple[int, ...]
    numbers: Mapping[str, float]

    @property
    def groups(self) -> int:
        """The number of groups, or 0."""
        named = self.segment.layout.groups
        return int(self.numbers[named] if isinstance(named, str) else named or 0)

    @property
    def axes(self) -> Axes:
        """The dims of the activation as it broadcasts."""
        shape = self.segment.layout.half(self.shape)
        if self.groups:
            shape = self.unfolded(torch.Size(shape))
        return Axes(tuple(shape), self.segment.layout.columns)

    def unfolded(self, shape: torch.Size) -> torch.Size:
        """Return a shape in which the channels' dim, counted from the activation's front, is two dims."""
        missing = len(self.segment.layout.half(self.shape)) - len(shape)
        place = CHANNEL_DIM - missing
        if place < 0:
            return shape
        size = shape[place]
        parts = (self.groups, size // self.groups) if size > 1 else (1, 1)
        return torch.Size((*shape[:place], *parts, *shape[place + 1 :]))

    def spread(self, source: Input, tensor: Tensor) -> Tensor:
        """Return an input's tensor in a shape that broadcasts."""
        layout = self.segment.layout
        rank = len(self.shape)
        if source.integer:
            columns = {dim % rank for dim in layout.columns}
            sizes = enumerate(layout.half(self.shape))
            return tensor.reshape([1 if dim in columns else size for dim, size in sizes])
        held = source.access.kind
        if held is Kind.CHANNEL and tensor.dim() == 1:
            tensor = tensor.reshape(-1, *[1] * (rank - 1 - CHANNEL_DIM))
        elif held is Kind.COL and tensor.dim() == 1:
            tensor = tensor.reshape(-1, *[1] * (-1 - layout.last))
        if self.groups and (tensor.dim() > 1 or held is Kind.CHANNEL):
            return tensor.reshape(self.unfolded(tensor.shape))
        return tensor


@dataclass(frozen=True)
class _Call:
    """A call of one segment.

    Args:
        segment: the segment.
        mode: its mode.
        form: how its tensors broadcast.
        numbers: the numbers of the call.
        seed: the seed of the draws.
        rounding: what becomes of each operation's value.
        later: whether a segment comes before it, which passes it x and gets the gradient of x.
        last: whether no segment comes after it.
    """

    segment: Segment
    mode: Mode
    form: _Form
    numbers: Mapping[str, float]
    seed: int
    rounding: Rounding
    later: bool
    last: bool

    def value(self, given: Mapping[str, Tensor]) -> list[Tensor]:
        """Return the segment's value, and the values that later segments use."""
        program = self.mode.programs[0]
        found = self._run(program, self._inputs(program, given))
        values = []
        for name, out in program.returned.items():
            value = self._whole(program, found, name, self._shape(out))
            values.append(value if self.last else self.rounding.stored(value))
        return values

    def kept(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return those of its values that the backward program takes, as they are stored."""
        forward, *derivatives = self.mode.programs
        named = dict(zip(forward.returned, values, strict=True))
        return [
            self.rounding.stored(named[name]) for d in derivatives[:1] for name in d.kept.values()
        ]

    def gradients(
        self,
        given: Mapping[str, Tensor],
        kept: Sequence[Tensor],
        cotangents: tuple[Tensor, ...],
    ) -> dict[str, Tensor]:
        """Return the gradients of the segment's tensors that have one."""
        forward, program = self.mode.programs[:2]
        own_name = dict(zip(program.tensors, forward.tensors, strict=False))
        taken = {**given, **dict(zip(program.kept, kept, strict=True))}
        given = {**given, **{t: taken[name] for t, name in own_name.items() if name in taken}}
        along = {
            f"grad_{name}": self._along(out, cotangent)
            for (name, out), cotangent in zip(forward.returned.items(), cotangents, strict=True)
        }
        inputs = self._inputs(program, {**given, **along})
        found = self._run(program, inputs)
        gradients = {}
        handed = {operand.code for operand in self.segment.operands if operand.handed}
        handed |= {"x"} if self.later else set()
        for name, out in program.returned.items():
            tensor = own_name[out.like.tensor]
            gradient = self._whole(program, found, name, given[tensor].shape)
            gradients[tensor] = self.rounding.stored(gradient) if tensor in handed else gradient
        for name, shared in program.shared.items():
            gradients[shared.like.tensor] = found[name].reshape(given[shared.like.tensor].shape)
        return gradients

    def _shape(self, out: Output) -> Sequence[int]:
        """Return the shape of an output of the forward pass."""
        return self.segment.layout.shape_after(self.form.shape, out.outline)

    def _whole(
        self, program: Program, found: Mapping[str, Tensor], name: str, shape: Sequence[int]
    ) -> Tensor:
        """Return an output of a program in its tensor's shape; parts are joined."""
        access = program.outputs[name].access(name)
        if access.count == 1:
            return found[name].reshape(shape)
        dim = self._halved(len(shape))
        sizes = list(shape)
        sizes[dim] //= access.count
        names = [part.name for part in access.parts(name)]
        parts = [found[part].reshape(sizes).movedim(dim, -1) for part in names]
        if access.step > 1:
            parts[:2] = [torch.stack(parts[:2], -1).flatten(-2)]
        return torch.cat(parts, -1).movedim(-1, dim)

    def _part(self, tensor: Tensor, access: Access) -> Tensor:
        """Return a part of a tensor."""
        dim = self._halved(tensor.dim())
        rows = tensor.movedim(dim, -1)
        width = rows.shape[-1] // access.count
        if access.step > 1:
            part = rows[..., access.place : 2 * width : access.step]
        else:
            part = rows[..., access.place * width : (access.place + 1) * width]
        return part.movedim(-1, dim)

    def _halved(self, dims: int) -> int:
        """Return the dim of a tensor's parts; a tensor with one number per channel has only that dim."""
        return self.segment.layout.halved if dims > 1 else -1

    def _along(self, out: Output, cotangent: Tensor) -> Tensor:
        """Return the cotangent of an output, in a shape that broadcasts if the output has lost dims."""
        if out.kind == Kind.ROW:
            return cotangent.reshape(self.form.axes.of(Kind.ROW))
        return cotangent

    def _run(self, program: Program, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return run_program(program, inputs, self.seed, self.form.axes, self.rounding)

    def _inputs(self, program: Program, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a program's inputs in shapes that broadcast."""
        x = given["x"]
        found: dict[str, Tensor] = {}
        for source in program.inputs:
            if source.name == SHAPE:
                found[source.name] = x.new_zeros(()).expand(self.form.axes.shape)
            elif source.source == "attribute":
                number = torch.tensor(self.numbers[source.name], dtype=x.dtype, device=x.device)
                found[source.name] = number
            elif is_presence(source):
                found[source.name] = x.new_ones(())
            elif source.source == "tensor":
                tensor = given[source.tensor]
                if source.access.count > 1:
                    tensor = self._part(tensor, source.access)
                tensor = tensor.to(x.dtype) if tensor.dtype is torch.bool else tensor
                found[source.name] = self.form.spread(source, tensor)
        return found
