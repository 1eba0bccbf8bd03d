"""Collects what a module's constructor makes, in the order of the steps: submodules, parameters, numbers."""

from __future__ import annotations

from collections.abc import Sequence

from fusegen.chain import SegmentOperand
from fusegen.render.declared_modes import tuple_text
from fusegen.render.module_forward import parameters_of
from fusegen.render.places import containers, keeping, kept_sizes
from fusegen.spec.cut import CUT, sizes_of
from fusegen.spec.model import Argument, Operand, Ref, Spec, Step

__all__ = ["literal", "members_of"]

#: The constructor arguments of modules with parameters, as in torch's own modules.
_FACTORY = ("device=device", "dtype=dtype")


def literal(argument: Argument) -> str:
    """Return an argument's default as Python text, or an empty string."""
    if argument.default is None:
        return ""
    if isinstance(argument.default, tuple):
        return tuple_text(argument.default)
    return repr(argument.default)


def members_of(spec: Spec, operands: Sequence[SegmentOperand], numbers: Sequence[str]) -> list[str]:
    """Return the constructor's lines: submodules, parameters and numbers, in the order of the steps.

    Args:
        spec: the spec.
        operands: what its functions take beside x.
        numbers: the arguments that no submodule keeps.
    """
    declared = {o.name: o for o in spec.operands}
    lines: list[str] = []
    seen: set[str] = set()
    made: set[str] = set()
    for argument in spec.arguments:
        if argument.only is not None:
            other = f"{argument.name} != {argument.only}"
            if isinstance(argument.only, bool):
                other = f"not {argument.name}" if argument.only else argument.name
            lines.append(f"if {other}:")
            message = f"{argument.name} is {argument.only} here, not {{{argument.name}!r}}"
            lines.append(f'    raise ValueError(f"{spec.name}: {message}")')
        if isinstance(argument.default, tuple) and any(
            isinstance(s, str) for s in argument.default
        ):
            lines.append(f"if {argument.name} is None:")
            lines.append(f"    {argument.name} = {literal(argument)}")
    for step in spec.steps:
        if step.op is CUT and not all(isinstance(size, int) for size in sizes_of(step)):
            lines.append(
                f"self.{kept_sizes(step.label)} = {tuple_text([str(size) for size in sizes_of(step)])}"
            )
        if step.op and step.op.submodule:
            lines += containers(step.place, made)
            lines.append(keeping(step.place, _submodule(step)))
        own = [o.name for o in operands if o.owner == o.name and _uses(step, o.name)]
        own += [f.name for f in step.factors.values() if f.name in parameters_of(spec)]
        lines += _sizes_of_operand(spec, step)
        for name in own:
            if name not in seen:
                seen.add(name)
                lines += containers(declared[name].place, made)
                parameter = _parameter(declared[name])
                lines.append(keeping(declared[name].place, parameter, "register_parameter"))
    for operand in spec.operands:
        if operand.unused:
            lines += containers(operand.place, made)
            lines.append(keeping(operand.place, _parameter(operand), "register_parameter"))
    return [*lines, *(f"self.{name} = {name}" for name in numbers)]


def _sizes_of_operand(spec: Spec, step: Step) -> list[str]:
    """Return the line that keeps the sizes of the parts that a step takes of an operand, if it needs one."""
    sizes = next((cut.sizes for cut in spec.taken_apart if cut.label == step.label), ())
    if all(isinstance(size, int) for size in sizes):
        return []
    return [f"self.{kept_sizes(step.label)} = {tuple_text([str(size) for size in sizes])}"]


def _uses(step: Step, name: str) -> bool:
    """Whether a step has an operand with this name."""
    return any(isinstance(r, Ref) and r.name == name for r in step.operands.values())


def _submodule(step: Step) -> str:
    """Return the text that constructs a step's submodule."""
    assert step.op is not None and step.op.submodule is not None
    held = step.op.submodule
    arguments = [_size(step, size) for size in held.sized_by]
    arguments += [f"{k}={_size(step, k)}" for k in held.geometry if k in step.settings]
    for keyword in held.keywords:
        if keyword in step.attributes:
            value = step.attributes[keyword]
            arguments.append(f"{keyword}={value.name if isinstance(value, Ref) else repr(value)}")
    flag = step.settings.get(held.flag, held.flagged)
    if flag is not held.flagged:
        arguments.append(f"{held.flag}={flag}")
    if held.operands:
        arguments += _FACTORY
    return f"{held.module_for(step.dims)}({', '.join(arguments)})"


def _size(step: Step, size: str) -> str:
    """Return the text of a size that the step's submodule takes."""
    setting = step.settings.get(size, step.attributes.get(size))
    return tuple_text(setting) if isinstance(setting, tuple) else str(setting)


def _parameter(operand: Operand) -> str:
    """Return the text that constructs the parameter for a declared operand."""
    assert operand.shape is not None
    shape = operand.shape if isinstance(operand.shape, str) else tuple_text(operand.shape)
    if isinstance(operand.init, str):
        return f"nn.Parameter(torch.{operand.init}({', '.join([shape, *_FACTORY])}))"
    value = f"float({operand.init})" if isinstance(operand.init, Ref) else repr(operand.init)
    return f"nn.Parameter(torch.full({', '.join([shape, value, *_FACTORY])}))"
