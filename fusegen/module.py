"""Chain -> what the template of `__init__.py` needs: signatures, submodules, parameters, calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sympy as sp

from fusegen.chain import Chain, Mode
from fusegen.program import Input, Kind, Map, Program, Reduce, Take, Value
from fusegen.spec_types import Argument, Operand, Ref, Spec, Step

_PYTHON_TYPES = {"int": "int", "float": "float", "shape": "Sequence[int]"}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a generated function: its name, its type and its default as Python text."""

    name: str
    type: str
    default: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.type}" + (f" = {self.default}" if self.default else "")


def module_context(chain: Chain) -> dict[str, object]:
    """Return the context of `templates/module.py.j2`."""
    spec = chain.spec
    arguments = {a.name: a for a in spec.arguments}
    floats = [arguments[name] for name in chain.attributes]
    moded = len(chain.modes) == 2
    random = any(mode.random for mode in chain.modes)
    options = [Parameter(a.name, "float", _literal(a)) for a in floats]
    if isinstance(chain.layout.groups, str):
        options.append(
            Parameter(chain.layout.groups, "int", _literal(arguments[chain.layout.groups]))
        )
    if moded:
        options.append(Parameter("training", "bool", str(_trains_by_default(spec))))
    if _tracked(chain):
        options.append(Parameter("batch_weights", "Sequence[float] | None", "None"))
    if random:
        options.append(Parameter("seed", "int | Tensor | None", "None"))
    return {
        "summary": " -> ".join(_word(s) for s in spec.steps),
        "description": spec.description,
        "operands": chain.operands,
        "modes": [_mode_context(chain, mode) for mode in chain.modes],
        "moded": moded,
        "random": random,
        "parameters": ["x: Tensor", *(f"{o.name}: Tensor" for o in chain.operands)],
        "options": options,
        "attributes": chain.attributes,
        "tracked": _tracked(chain),
        "statistics": [v.name for v in chain.modes[0].saved],
        "order": spec.order,
        "constructor": [_constructor_parameter(a) for a in spec.arguments],
        "members": _members(chain),
        "inputs": ["x", *_inputs(chain), *(o.name for o in chain.operands if o.owner is None)],
        "source": _source_call(chain),
        "training": _training(spec),
        "held_operands": [f"self.{o.owner}" if o.owner else o.name for o in chain.operands],
        "held_attributes": _held_attributes(chain) | _held_groups(chain),
        "groups": chain.layout.groups,
        "uses_shapes": any(a.type == "shape" for a in spec.arguments) or bool(_tracked(chain)),
        "norms": [f"self.{t.label}" for t in _tracked(chain)],
    }


def _word(step: Step) -> str:
    return step.op.name if step.op else f"({step.text})"


def _literal(argument: Argument) -> str:
    if argument.default is None:
        return ""
    if isinstance(argument.default, tuple):
        return _tuple(argument.default)
    return repr(argument.default)


def _mode_context(chain: Chain, mode: Mode) -> dict[str, object]:
    """Return the text of one `Mode(...)`: which operands and attributes it takes, its passes."""
    forward = mode.programs[0]
    taken = {i.name for i in forward.inputs}
    operands = [n for n, o in enumerate(chain.operands) if o.name in taken]
    attributes = [n for n, a in enumerate(chain.attributes) if a in taken]
    passes = []
    for program, kernel in zip(mode.programs, mode.kernels, strict=True):
        tensors = program.tensors
        like = tuple(tensors.index(o.like.tensor) for o in program.returned.values())
        by_column = ", by_column=True" if _by_column(program) else ""
        order = "contiguous" if chain.layout.groups is not None else kernel.order
        lies = f', order="{order}"' if order != "contiguous" else ""
        value = ", value=True" if kernel.droppable else ""
        outline = "" if program is not forward else forward.outputs["y"].outline
        shape = f', outline="{outline}"' if outline not in ("", "like") else ""
        passes.append(f'Pass("{program.name}", {like}{by_column}{lies}{value}{shape})')
    return {
        "name": mode.name,
        "operands": tuple(operands),
        "attributes": tuple(attributes),
        "passes": passes,
        "saved": _tuple([f'"{v.kind.label}"' for v in mode.saved]),
        "random": mode.random,
    }


#: Inputs that say which column of the whole row one is.
_OF_COLUMNS = (("index", "column"), ("extent", "cols"))


def _by_column(program: Program) -> bool:
    """Whether no value depends on a whole row: nothing is reduced along it but what leaves as a result, and
    no column is known by its number."""
    last = {o.value for o in program.outputs.values()}
    return not any(
        (isinstance(v, Reduce) and Kind.COL in v.arg.kind & ~v.kind and v not in last)
        or isinstance(v, Take)
        or (isinstance(v, Input) and (v.source, v.name) in _OF_COLUMNS)
        for v in program.nodes()
    )


def _trains_by_default(spec: Spec) -> bool:
    """Whether `apply` trains unless told otherwise, as torch's own function does: dropout, not batch norm."""
    return all(not (s.op and s.op.trained) for s in spec.steps)


def _training(spec: Spec) -> list[str]:
    """Return the submodules whose `training` decides the mode."""
    return [
        s.label
        for s in spec.steps
        if s.op and (s.op.trained or s.op.eval_mode == "identity") and s.op.submodule
    ]


@dataclass(frozen=True)
class Tracked:
    """A step whose submodule keeps running averages.

    Args:
        label: the submodule's name.
        averages: each buffer's name among the operands, with the terms of what it follows, as Python text:
            a coefficient over the extents, and the saved statistics that it multiplies.
        momentum: the weight of a batch, as Python text.
    """

    label: str
    averages: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]
    momentum: str


def _tracked(chain: Chain) -> list[Tracked]:
    """Return the steps that keep running averages in training."""
    found = []
    nodes = {v.name: v for v in chain.modes[0].programs[0].nodes()}
    for step in chain.spec.steps:
        if step.op is None or not step.op.tracked:
            continue
        averages = [
            (f"{step.label}_{step.held[buffer]}", _terms(nodes[f"{step.label}_{part}"]))
            for buffer, part in step.op.tracked.items()
        ]
        momentum = step.attributes["momentum"]
        found.append(
            Tracked(
                step.label,
                tuple(averages),
                momentum.name if isinstance(momentum, Ref) else repr(momentum),
            )
        )
    return found


_EXTENTS = {"rows", "cols", "sample"}


def _terms(value: Value) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return a polynomial of reductions term by term, those of the lowest degree first."""
    expr = _in_statistics(value)
    statistics = sorted((s for s in expr.free_symbols if s.name not in _EXTENTS), key=str)
    found = sp.Poly(expr, *statistics).terms()
    return tuple(
        (str(c), tuple(str(s) for s, n in zip(statistics, powers, strict=True) for _ in range(n)))
        for powers, c in sorted(found, key=lambda term: sum(term[0]))
    )


def _in_statistics(value: Value) -> sp.Expr:
    """Return a value's expression over reductions and extents alone."""
    if not isinstance(value, Map):
        return value.symbol
    return value.expr.xreplace({a.symbol: _in_statistics(a) for a in value.args})


def _constructor_parameter(argument: Argument) -> Parameter:
    kind = _PYTHON_TYPES[argument.type]
    if isinstance(argument.default, tuple) and any(isinstance(s, str) for s in argument.default):
        return Parameter(argument.name, f"{kind} | None", "None")
    return Parameter(argument.name, kind, _literal(argument))


def _members(chain: Chain) -> list[str]:
    """Return the constructor's lines: submodules, parameters and numbers, in the chain's order."""
    spec = chain.spec
    declared = {o.name: o for o in spec.operands}
    held: set[str] = set()
    lines: list[str] = []
    seen: set[str] = set()
    for argument in spec.arguments:
        if isinstance(argument.default, tuple) and any(
            isinstance(s, str) for s in argument.default
        ):
            lines.append(f"if {argument.name} is None:")
            lines.append(f"    {argument.name} = {_literal(argument)}")
    for step in spec.steps:
        if step.op and step.op.submodule:
            lines.append(f"self.{step.label} = {_submodule(step, chain.layout.rank)}")
            held |= {
                v.name
                for k, v in step.attributes.items()
                if isinstance(v, Ref) and k in step.op.submodule.keywords
            }
        for operand in chain.operands:
            if (
                operand.owner == operand.name
                and operand.name not in seen
                and _uses(step, operand.name)
            ):
                seen.add(operand.name)
                lines.append(f"self.{operand.name} = {_parameter(declared[operand.name])}")
    lines += [f"self.{name} = {name}" for name in chain.attributes if name not in held]
    return lines


def _uses(step: Step, name: str) -> bool:
    return any(isinstance(r, Ref) and r.name == name for r in step.operands.values())


def _submodule(step: Step, rank: int) -> str:
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
    return f"{held.module_for(rank)}({', '.join(arguments)})"


def _size(step: Step, size: str) -> str:
    """Return the text of a size that the step's submodule takes."""
    setting = step.settings.get(size, step.attributes.get(size))
    return str(setting)


def _parameter(operand: Operand) -> str:
    assert operand.shape is not None
    shape = operand.shape if isinstance(operand.shape, str) else _tuple(operand.shape)
    return f"nn.Parameter(torch.{operand.init}({shape}))"


def _tuple(sizes: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def _source_call(chain: Chain) -> tuple[str, list[str]] | None:
    """Return torch's function for the source, and its arguments."""
    if chain.source is None:
        return None
    op, held = chain.source.op, f"self.{chain.source.label}"
    assert op is not None
    given = [*_inputs(chain), *([f"{held}.weight"] if op.submodule else [])]
    if op.submodule:
        given += [f"{name}={held}.{name}" for name in op.submodule.geometry]
    return f"torch.{op.torch}", ["x", *given]


def _inputs(chain: Chain) -> tuple[str, ...]:
    """Return what the source takes beside x."""
    return chain.source.op.inputs if chain.source is not None and chain.source.op else ()


def _held_groups(chain: Chain) -> dict[str, str]:
    """Return where a `Module` keeps the number of groups, if that is an argument."""
    if not isinstance(chain.layout.groups, str):
        return {}
    step = next(s for s in chain.spec.steps if s.op and s.op.groups)
    assert step.op is not None
    return {chain.layout.groups: f"self.{step.label}.{step.op.groups}"}


def _held_attributes(chain: Chain) -> dict[str, str]:
    """Return where a `Module` keeps each attribute: in the submodule that takes it, or itself."""
    places = {name: f"self.{name}" for name in chain.attributes}
    for step in chain.spec.steps:
        held = step.op.submodule.keywords if step.op and step.op.submodule else ()
        for key, value in step.attributes.items():
            if isinstance(value, Ref) and key in held:
                places[value.name] = f"self.{step.label}.{key}"
    return places
