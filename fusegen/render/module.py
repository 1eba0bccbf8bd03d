"""Collects what the template of `__init__.py` needs: signatures, submodules, parameters, calls."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusegen.chain import Chain
from fusegen.render.cuts import cut_lines, given_along, taken_apart
from fusegen.render.module_docs import Parameter, example, module_signature, signature
from fusegen.render.module_forward import (
    fused_submodules,
    inputs_of_source,
    local,
    parameters_of,
    source_of,
)
from fusegen.render.module_members import literal, members_of
from fusegen.render.module_segments import SegmentContext, segment_contexts
from fusegen.render.places import kept_at, text_of
from fusegen.render.stepwise import stepwise_lines
from fusegen.spec.cut import START
from fusegen.spec.model import INPUT, Argument, Ref, Spec, Step

_HELPERS = (
    "along_dims",
    "as_large_as",
    "beside",
    "beside_dropped",
    "column_numbers",
    "in_rows",
    "one_a_row",
    "operand_beside",
    "widened",
)
_PYTHON_TYPES = {"int": "int", "float": "float", "bool": "bool", "shape": "Sequence[int]"}


def module_context(chain: Chain) -> dict[str, object]:
    """Return what the templates need of a chain: its function, and the method of `Module` that calls it."""
    spec = chain.spec
    arguments = {a.name: a for a in spec.arguments}
    floats = [arguments[name] for name in chain.attributes]
    options = [Parameter(a.name, "float", literal(a)) for a in floats]
    options += [Parameter(name, "int", literal(arguments[name])) for name in chain.groups]
    if chain.moded:
        options.append(Parameter("training", "bool", str(_trains_by_default(spec))))
    segments = segment_contexts(chain)
    tracked = [norm for segment in segments for norm in segment.tracked]
    if tracked:
        options.append(Parameter("batch_weights", "Sequence[float] | None", "None"))
    if chain.random:
        options.append(Parameter("seed", "int | Tensor | None", "None"))
    inputs = inputs_of(chain)
    constructor = constructor_of(spec)
    held = _held_attributes(chain) | _held_groups(chain)
    training = _training(spec)
    members = members_of(
        spec, chain.operands, [n for n in chain.attributes if held[n] == f"self.{n}"]
    )
    fused = fused_submodules(chain, training)
    stepwise = lines_in_torch(chain) if fused else []
    outputs = [name if name in spec.further_outputs else "x" for name in spec.outputs]
    later, cuts = spec.number > 1, cut_lines(chain)
    places = {o.name: text_of(o.place) for o in spec.operands}
    return {
        "function": spec.function,
        "method": f"_chain_{spec.number}" if spec.number else "forward",
        "step_by_step": f"_step_by_step_{spec.number}" if spec.number else "_step_by_step",
        "signatures": [
            signature(spec.function, ["x", *(o.name for o in chain.operands)], options),
            module_signature(constructor, inputs),
        ],
        "example": example(chain, options),
        "summary": summary_of(spec),
        "description": spec.description,
        "operands": chain.operands,
        "dtypes_of_their_own": _dtypes_of_their_own(chain),
        "layout": chain.layout,
        "segments": segments,
        "outputs": outputs,
        "returned_values": _returned_values(chain, outputs),
        "rearranging": rearranging(segments),
        "output_steps": spec.outputs,
        "returned_dtypes": _returned_dtypes(spec),
        "returned": "tuple[Tensor, ...]" if spec.outputs else "Tensor",
        "moded": chain.moded,
        "random": chain.random,
        "parameters": ["x: Tensor", *(f"{o.name}: Tensor" for o in chain.operands)],
        "options": options,
        "tracked": tracked,
        "order": spec.order,
        "constructor": constructor,
        "members": members,
        "factory": any("dtype=dtype" in line for line in members),
        "inputs": inputs,
        "keeps_input": not later and any(o.name == INPUT for o in chain.operands),
        "source": source_of(chain),
        "larger": [],
        "smaller": {},
        "cuts": cuts,
        "fused": fused,
        "stepwise": stepwise,
        "helpers": helpers_in([*cuts, *stepwise]),
        "training": f"{local(training[0])}.training" if training else "",
        "held_operands": {
            o.name: places[o.name] if o.owner == o.name else o.name for o in chain.operands
        },
        "held_attributes": {name: _as_local(place, spec.steps) for name, place in held.items()},
        "groups": chain.groups,
        "uses_shapes": any(a.type == "shape" for a in spec.arguments) or bool(tracked),
        "norms": [local(t.label) for t in tracked],
    }


def lines_in_torch(chain: Chain) -> list[str]:
    """Return the lines of a `Module` that compute the chain's value step by step in torch."""
    places = {o.name: text_of(o.place) for o in chain.spec.operands}
    tensors = {o.name: places.get(o.name, "") if o.owner else o.name for o in chain.operands}
    numbers = _held_attributes(chain) | _held_groups(chain)
    return stepwise_lines(chain.spec, tensors, numbers, cut_lines(chain), given_along(chain))


def helpers_in(lines: Sequence[str]) -> list[str]:
    """Return the helpers of `fusegen.runtime.steps` that lines of Python call."""
    return [name for name in _HELPERS if any(re.search(rf"\b{name}\(", line) for line in lines)]


def inputs_of(chain: Chain) -> list[str]:
    """Return the tensors with which a `Module` calls a chain."""
    wholes = {name: cut.whole for cut in taken_apart(chain) for name in cut.names}
    held = parameters_of(chain.spec)
    given = [wholes.get(o.name, o.name) for o in chain.operands if o.owner is None]
    given = [name for name in dict.fromkeys(given) if name not in held]
    own_input = chain.spec.number < 2  # its x is the input
    source = chain.source
    factors = inputs_of_source(source, parameters_of(chain.spec)) if source is not None else []
    return [
        "x",
        *factors,
        *(n for n in given if n not in factors and not (own_input and n == INPUT)),
    ]


def constructor_of(spec: Spec) -> list[Parameter]:
    """Return the constructor's parameters."""
    return [_constructor_parameter(a) for a in spec.arguments]


def summary_of(spec: Spec) -> str:
    """Return the ops of a spec's steps in one line."""
    return " -> ".join(_word(s) for s in spec.steps if s.op is not START)


def _dtypes_of_their_own(chain: Chain) -> str:
    """Return the dtypes of operands that need not have x's, as text."""
    wide = any(operand.float32 for operand in chain.operands)
    mask = any(operand.mask for operand in chain.operands)
    names = ["float32"] * wide + ["int64"] + ["bool"] * mask
    return " and ".join([name for name in (", ".join(names[:-1]), names[-1]) if name])


def _returned_dtypes(spec: Spec) -> str:
    """Return the dtypes of what the chain returns, as text."""
    dtypes = {
        **dict.fromkeys(spec.float32, "in float32 unless x is float64"),
        **{step.label: "in int64" for step in spec.steps if step.indexes},
    }
    labels = spec.outputs or (spec.steps[-1].label,)
    found = [dtypes.get(label, "in x's dtype") for label in labels]
    if len({*found}) == 1:
        return found[0]
    own = [f"{label}: {dtypes[label]}" for label in labels if label in dtypes]
    return "; ".join(["in x's dtype", *own])


def _returned_values(chain: Chain, outputs: Sequence[str]) -> list[str]:
    """Return the text of each value that `apply` returns, if it is not what the last segment returns.

    Kernels give the number of a column in their compute type.
    """
    spec = chain.spec
    indexes = {step.label for step in spec.steps if step.indexes}
    if not outputs:
        as_it_is = ["x"] if chain.segments[-1].layout.order else []
        return ["x.long()"] if spec.steps[-1].indexes else as_it_is
    return [
        f"{name}.long()" if label in indexes else name
        for label, name in zip(spec.outputs, outputs, strict=True)
    ]


def rearranging(segments: Sequence[SegmentContext]) -> list[str]:
    """Return the functions of `fusegen.runtime.rearranged` that calls of segments need."""
    found = {text.split("(")[0] for s in segments for text in s.taken if "(" in text}
    found |= {"rows_first" for s in segments if s.order}
    found |= {"restored" for s in segments if s.restored}
    return sorted(found)


def _word(step: Step) -> str:
    """Return a word for a step in a summary of the chain."""
    return step.op.name if step.op else f"({step.text})"


def _trains_by_default(spec: Spec) -> bool:
    """Whether `apply` trains by default, as torch's own function does: dropout does, batch norm does not."""
    return all(not (s.op and s.op.trained) for s in spec.steps)


def _training(spec: Spec) -> list[str]:
    """Return the submodules whose `training` decides the mode."""
    return [
        s.label
        for s in spec.steps
        if s.op and (s.op.trained or s.op.eval_mode == "identity") and s.op.submodule
    ]


def _constructor_parameter(argument: Argument) -> Parameter:
    """Return the constructor's parameter for an argument of the spec."""
    kind = _PYTHON_TYPES[argument.type]
    if isinstance(argument.default, tuple) and any(isinstance(s, str) for s in argument.default):
        return Parameter(argument.name, f"{kind} | None", "None")
    return Parameter(argument.name, kind, literal(argument))


def _held_groups(chain: Chain) -> dict[str, str]:
    """Return where a `Module` keeps each number of groups that is an argument."""
    places: dict[str, str] = {}
    for step in chain.spec.steps:
        value = step.attributes[step.op.groups] if step.op and step.op.groups else None
        if step.op and isinstance(value, Ref):
            places.setdefault(value.name, f"{kept_at(step)}.{step.op.groups}")
    return places


def _held_attributes(chain: Chain) -> dict[str, str]:
    """Return where a `Module` keeps each attribute: in the submodule that takes it, or itself."""
    places = {name: f"self.{name}" for name in chain.attributes}
    for step in chain.spec.steps:
        held = step.op.submodule.keywords if step.op and step.op.submodule else ()
        for key, value in step.attributes.items():
            if isinstance(value, Ref) and key in held and value.name in places:
                held_already = places[value.name] != f"self.{value.name}"
                places[value.name] = (
                    places[value.name] if held_already else f"{kept_at(step)}.{key}"
                )
    return places


def _as_local(place: str, steps: Sequence[Step]) -> str:
    """Return the text of a place in `forward`, which holds each submodule in a local variable."""
    owner, _, attribute = place.rpartition(".")
    for step in steps:
        if step.op and step.op.submodule and kept_at(step) == owner:
            return f"{local(step.label)}.{attribute}"
    return place
