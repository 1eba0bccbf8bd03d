"""Spec -> programs: the chain as it runs in training and in evaluation, with its derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy as sp

from fusegen import ops
from fusegen.calculus import vjp
from fusegen.errors import SpecError
from fusegen.formula_constants import number
from fusegen.formula_nodes import formula_value
from fusegen.layout import Layout, pointwise_layout
from fusegen.lower import Kernel, lower
from fusegen.lower.ranges import simplify
from fusegen.program import Builder, Input, Kind, Output, Program, Reduce, Value
from fusegen.spec_types import PASSES, Ref, Spec, Step


@dataclass(frozen=True)
class Tensors:
    """A tensor that the chain names.

    Args:
        name: its name in `apply`.
        kind: its kind.
        differentiable: whether it gets a gradient.
        owner: where a `Module` finds it, such as "matmul.bias", or None for an input of `forward`.
    """

    name: str
    kind: Kind
    differentiable: bool
    owner: str | None


@dataclass(frozen=True)
class Mode:
    """The chain in training ("train"), in evaluation ("eval"), or in both ("same").

    Args:
        name: which of them.
        steps: the steps that the kernels compute.
        programs: the forward pass and its derivatives, by order.
        kernels: the same, lowered.
    """

    name: str
    steps: tuple[Step, ...]
    programs: tuple[Program, ...]
    kernels: tuple[Kernel, ...]

    @property
    def saved(self) -> tuple[Value, ...]:
        """The row statistics that the forward pass saves."""
        return self.programs[0].saved

    @property
    def random(self) -> bool:
        """Whether the mode draws random numbers."""
        return any(i.source == "random" for i in self.programs[0].inputs)


@dataclass(frozen=True)
class Chain:
    """Everything that is derived from a spec.

    Args:
        spec: the spec.
        source: the step that torch computes first (a matmul), if any.
        operands: every tensor the chain names, in order.
        attributes: the float arguments that the kernels take, in the spec's order.
        modes: "same" alone, or "train" and "eval".
        torch_steps: how many steps torch computes in training (a batch norm and what is before it).
        layout: how the activation's dims become rows and columns.
    """

    spec: Spec
    source: Step | None
    operands: tuple[Tensors, ...]
    attributes: tuple[str, ...]
    modes: tuple[Mode, ...]
    torch_steps: int
    layout: Layout

    def describe(self) -> str:
        """Return every program of the chain, as text."""
        return "\n\n".join(str(program) for mode in self.modes for program in mode.programs)


def derive(spec: Spec) -> Chain:
    """Derive the programs and kernels of a spec.

    Raises:
        SpecError: where the chain has a form that is not supported.
    """
    steps = spec.steps
    operands = _operands(spec)
    in_torch = _torch_steps(spec)
    differs = any(s.op and (s.op.eval_mode == "identity" or s.op.train_in_torch) for s in steps)
    layout = _layout(spec, operands)
    modes = []
    for name in ("train", "eval") if differs else ("same",):
        kept = _steps_of(steps, name, in_torch)
        modes.append(_mode(spec, name, kept, operands, layout))
    used = {i.name for m in modes for p in m.programs for i in p.inputs if i.source == "attribute"}
    exposed = used | {
        value.name
        for step in steps[:in_torch]
        for value in step.attributes.values()
        if isinstance(value, Ref) and value.is_argument
    }
    return Chain(
        spec=spec,
        source=steps[0] if steps[0].op and steps[0].op.source else None,
        operands=operands,
        attributes=tuple(a.name for a in spec.arguments if a.name in exposed),
        modes=tuple(modes),
        torch_steps=in_torch,
        layout=layout,
    )


def _layout(spec: Spec, operands: Sequence[Tensors]) -> Layout:
    """Return the layout that the steps' dims ask for.

    Raises:
        SpecError: where two steps reduce over different dims.
    """
    dims = [(s, s.attributes[d]) for s in spec.steps if s.op for d in s.op.dims]
    if spec.dims < 3:
        return Layout(2 if spec.dims or any(dim == 1 for _, dim in dims) else 0)
    found: Layout | None = None
    for step, dim in dims:
        assert isinstance(dim, int)
        place = dim % spec.dims - spec.dims
        layout = Layout(spec.dims, place, place)
        if found is not None and layout != found:
            raise SpecError(
                f"{step.label} reduces over {layout.shape}, but an earlier step over {found.shape}: one "
                "kernel reduces over the same dims throughout; split the chain into two specs there",
                spec.path,
                step.line,
            )
        found = layout
    return found or pointwise_layout(spec.dims, (o.kind for o in operands))


def _steps_of(steps: Sequence[Step], mode: str, in_torch: int) -> tuple[Step, ...]:
    if mode == "train":
        return tuple(steps[in_torch:])
    if mode == "eval":
        return tuple(s for s in steps if not (s.op and s.op.eval_mode == "identity"))
    return tuple(steps)


def _torch_steps(spec: Spec) -> int:
    """Return how many leading steps torch runs in training, because it has to run the last of them."""
    count = 0
    for place, step in enumerate(spec.steps):
        if step.op and step.op.train_in_torch:
            before = spec.steps[count:place]
            if any(not (s.op and s.op.source) for s in before):
                raise SpecError(
                    f"{step.label}: in training torch computes {step.op.name}, so for now it must stand at "
                    "the start of the chain or right behind the matmul",
                    spec.path,
                    step.line,
                )
            count = place + 1
    if count == len(spec.steps):
        raise SpecError(
            "nothing is left to fuse in training: the chain ends where torch's part ends",
            spec.path,
            spec.steps[-1].line,
        )
    return count


def _operands(spec: Spec) -> tuple[Tensors, ...]:
    """Return the tensors that the chain names, each at its first use."""
    declared = {o.name: o for o in spec.operands}
    found: dict[str, Tensors] = {}
    for step in spec.steps:
        if step.op and step.op.submodule:
            held = step.op.submodule
            for name, attribute in zip(step.op.operands, held.operands, strict=False):
                if step.op.source and step.settings.get("bias") is False:
                    continue
                full = f"{step.label}_{attribute}"
                kind = _resolved(step.op.operands[name] or Kind.CHANNEL, spec)
                trained = attribute not in held.buffers
                found[full] = Tensors(full, kind, trained, f"{step.label}.{attribute}")
        for name in _names_in(step):
            if name in declared:
                operand = declared[name]
                owner = name if operand.init else None
                kind = _resolved(operand.kind, spec)
                moves = name not in _constants_of(step)
                before = found.get(name)
                moves = moves or (before is not None and before.differentiable)
                found[name] = Tensors(name, kind, moves, owner)
    return tuple(found.values())


def _constants_of(step: Step) -> list[str]:
    """Return the operands of a step through which no gradient runs."""
    constant = step.op.constant if step.op else ()
    return [r.name for n, r in step.operands.items() if n in constant and isinstance(r, Ref)]


def _resolved(kind: Kind, spec: Spec) -> Kind:
    """Return an operand's kind; where the channel is the last dim, it is that of a column."""
    return Kind.COL if kind is Kind.CHANNEL and spec.dims < 3 else kind


def _names_in(step: Step) -> list[str]:
    return [
        ref.name for ref in step.operands.values() if isinstance(ref, Ref) and not ref.is_argument
    ]


def _mode(
    spec: Spec, name: str, steps: Sequence[Step], operands: Sequence[Tensors], layout: Layout
) -> Mode:
    suffix = "" if name == "same" else f"_{name}"
    forward = _program(spec, f"forward{suffix}", steps, operands, layout)
    programs = [forward]
    for order in range(1, spec.order + 1):
        programs.append(vjp(programs[-1], f"{PASSES[order]}{suffix}"))
    later = {v for p in programs[1:] for v in p.nodes()}
    saved = tuple(
        v for v in forward.nodes() if isinstance(v, Reduce) and v.kind == Kind.ROW and v in later
    )
    programs[0] = replace(forward, saved=saved)
    kernels = [lower(programs[0]), *(lower(p, given=saved) for p in programs[1:])]
    return Mode(name, tuple(steps), tuple(programs), tuple(kernels))


def _program(
    spec: Spec, name: str, steps: Sequence[Step], operands: Sequence[Tensors], layout: Layout
) -> Program:
    """Return the program of some steps; its inputs are x and what those steps name."""
    builder = Builder()
    x = builder.input("x", Kind.FULL)
    named = {n for step in steps for n in _tensors_of(step)}
    for operand in operands:
        if operand.name in named:
            per_channel = operand.kind is Kind.CHANNEL
            builder.input(
                operand.name,
                layout.channel_kind if per_channel else operand.kind,
                differentiable=operand.differentiable,
                per_channel=per_channel and layout.spreads,
            )
    for argument in spec.arguments:
        if argument.type == "float" and any(argument.name in _arguments_of(s) for s in steps):
            builder.input(argument.name, Kind.SCALAR, "attribute")
    value: Value = x
    for step in steps:
        value = _apply(builder, step, value)
    if value.kind != Kind.FULL:
        raise SpecError(
            f"the chain's result does not depend on each element of x: it is a {value.kind.label} value",
            spec.path,
            steps[-1].line if steps else None,
        )
    tensors: list[Input] = [i for i in builder.inputs if i.source == "tensor"]
    rest = [i for i in builder.inputs if i.source != "tensor"]
    return simplify(Program(name, (*tensors, *rest), {"y": Output(value, x)}))


def _tensors_of(step: Step) -> list[str]:
    held: list[str] = []
    if (
        step.op
        and step.op.submodule
        and not (step.op.source and step.settings.get("bias") is False)
    ):
        held = [f"{step.label}_{attribute}" for attribute in step.op.submodule.operands]
    return held + _names_in(step)


def _arguments_of(step: Step) -> set[str]:
    values = (*step.operands.values(), *step.attributes.values())
    return {v.name for v in values if isinstance(v, Ref) and v.is_argument}


def _apply(builder: Builder, step: Step, x: Value) -> Value:
    """Return the value of one step."""
    if step.formula is not None:
        formula = step.formula.xreplace({sp.Symbol("x", real=True): x.symbol})
        return formula_value(builder, step.label, formula, step.text)
    assert step.op is not None
    if step.op.source and step.settings.get("bias") is False:
        return x
    bound: dict[str, sp.Expr] = {k: _symbol(v) for k, v in step.operands.items()}
    if step.op.submodule:
        for name, attribute in zip(step.op.operands, step.op.submodule.operands, strict=False):
            bound[name] = sp.Symbol(f"{step.label}_{attribute}", real=True)
    attributes: Mapping[str, object] = {k: _constant(v) for k, v in step.attributes.items()}
    expr = ops.call(step.op, x.symbol, bound, attributes)
    return formula_value(builder, step.label, expr, f"{step.label}: {step.op.statement}")


def _symbol(value: Ref | float) -> sp.Expr:
    return sp.Symbol(value.name, real=True) if isinstance(value, Ref) else number(value)


def _constant(value: object) -> object:
    return sp.Symbol(value.name, real=True) if isinstance(value, Ref) else value
