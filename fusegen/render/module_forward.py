"""Collects what the template of `Module.forward` needs: when fused kernels may replace the submodules."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from fusegen.chain import Chain
from fusegen.chain.channels_last import reading_of
from fusegen.program import Kind
from fusegen.render.places import kept_at, text_of
from fusegen.spec.model import INPUT, Factor, Ref, Spec, Step


@dataclass(frozen=True)
class Held:
    """A submodule of a `Module`, as its `forward` sees it.

    Args:
        label: its name.
        place: the text of where the `Module` keeps it.
        conditions: what must hold so that the kernels may take its parameters instead of calling it. The last
            conditions also assign its tensors to local variables with the names of the chain's operands.
    """

    label: str
    place: str
    conditions: tuple[str, ...]

    @property
    def local(self) -> str:
        """The local variable that holds it."""
        return local(self.label)


@dataclass(frozen=True)
class Source:
    """The source that a chain starts from.

    Args:
        function: torch's function for it.
        arguments: the function's arguments.
        held: its submodule, or None if it has none.
        bias: the operand that is its bias, or an empty string.
        channel: the dim of its channels.
        reading: what becomes of its result if it is channels-last; an empty string if it cannot be.
        beside: what the kernels then read beside the result, element by element.
        pooled: the text of its value by the kernels of windows; an empty string if it is no pooling.
    """

    function: str
    arguments: tuple[str, ...]
    held: Held | None
    bias: str
    channel: int
    reading: str = ""
    beside: tuple[str, ...] = ()
    pooled: str = ""


def local(label: str) -> str:
    """Return the local variable for a submodule in `forward`."""
    return f"{label}_"


def factors_of(step: Step, parameters: Mapping[str, str]) -> list[str]:
    """Return the texts of what a source takes beside the value that it starts from.

    Args:
        step: the source.
        parameters: see `parameters_of`.
    """
    texts = []
    for name in step.op.inputs if step.op else ():
        factor = step.factors.get(name, Factor(name))
        text = parameters.get(factor.name, factor.name)
        texts.append(f"{text}.mT" if factor.transposed else text)
    return texts


def inputs_of_source(step: Step, parameters: Collection[str]) -> list[str]:
    """Return the tensors with which a method must be called for its source."""
    names = [step.factors.get(n, Factor(n)).name for n in (step.op.inputs if step.op else ())]
    return [name for name in names if name not in parameters]


def parameters_of(spec: Spec) -> dict[str, str]:
    """Return the operands that are parameters of the Module, each with the text of where that keeps it."""
    return {o.name: text_of(o.place) for o in spec.operands if o.init is not None}


def source_of(chain: Chain) -> Source | None:
    """Return the source that the chain starts from, if there is one."""
    step = chain.source
    if step is None:
        return None
    assert step.op is not None
    function = f"torch.{step.op.torch}"
    if step.op.submodule is None:
        return Source(function, ("x", *factors_of(step, parameters_of(chain.spec))), None, "", 0)
    if not step.op.submodule.operands:
        pooled = pooled_text(step, "x") if step.op.pools else ""
        return Source(kept_at(step), ("x",), None, "", 0, pooled=pooled)
    held = local(step.label)
    geometry = [f"{name}={held}.{name}" for name in step.op.submodule.geometry]
    bias = next((f"{step.label}_{attribute}" for attribute in step.state.values()), "")
    channel = step.channel
    arguments = ("x", f"{held}.weight", *geometry)
    # A convolution of images or volumes may run in another memory format than its input has.
    reading = reading_of(chain) if step.op.rank in (4, 5) else ""
    return Source(
        function, arguments, _held(step, step, {}), bias, channel, reading, _full_inputs(chain)
    )


def pooled_text(step: Step, start: str, convolution: Step | None = None) -> str:
    """Return the text of what a pooling gives.

    Args:
        step: the pooling.
        start: the text of what is pooled.
        convolution: the source whose value is pooled, or None; `start` is then the text of its input.
    """
    if convolution is None:
        return f"pool_windows({kept_at(step)}, {start})"
    places = f"{kept_at(convolution)}, {kept_at(step)}"
    return f"convolve_and_pool({places}, {start}, self.memory_format)"


def _full_inputs(chain: Chain) -> tuple[str, ...]:
    """Return the operands with which a `Module` is called and which have a number for each element."""
    own_input = chain.spec.number < 2  # its x is the input
    given = [o for o in chain.operands if o.owner is None and not (own_input and o.name == INPUT)]
    return tuple(o.name for o in given if o.kind is Kind.FULL)


def fused_submodules(chain: Chain, training: Sequence[str]) -> list[Held]:
    """Return the submodules that the kernels replace.

    Args:
        chain: the chain.
        training: the submodules whose `training` decides the mode; they must all agree.
    """
    steps = [s for s in chain.spec.steps if s.op and s.op.submodule and s is not chain.source]
    first: dict[str, str] = {}
    found = []
    for step in steps:
        agrees = training[0] if step.label in training[1:] else step.label
        found.append(_held(step, next(s for s in steps if s.label == agrees), first))
    return found


def _held(step: Step, first: Step, shared: dict[str, str]) -> Held:
    """Return a submodule with its conditions.

    Args:
        step: the step.
        first: the step whose submodule must have the same `training`.
        shared: where each argument of the chain is read; this step's arguments are added.
    """
    assert step.op is not None and step.op.submodule is not None
    declared, own = step.op.submodule, local(step.label)
    conditions = [f"plain({own}, {declared.module_for(step.dims)})"]
    if first is not step:
        conditions.append(f"{own}.training == {local(first.label)}.training")
    for key in (*declared.keywords, step.op.groups):
        if key not in step.attributes or (step.op.tracked and key == "momentum"):
            continue  # a batch norm's momentum is read at each call
        value = step.attributes[key]
        if not isinstance(value, Ref):
            conditions.append(f"{own}.{key} == {value!r}")
        elif shared.setdefault(value.name, f"{own}.{key}") != f"{own}.{key}":
            conditions.append(f"{own}.{key} == {shared[value.name]}")
    features = step.settings.get("features")
    if declared.row_shape and isinstance(features, Ref):
        dims = step.attributes["dim"]
        count = len(dims) if isinstance(dims, tuple) else 1
        conditions.append(f"len({own}.{declared.row_shape}) == {count}")
    for attribute, fixed in declared.fixed.items():
        same = "is" if fixed is None or isinstance(fixed, bool) else "=="
        conditions.append(f"{own}.{attribute} {same} {fixed!r}")
    for attribute in declared.operands:
        if attribute in step.state.values():
            conditions.append(f"({step.label}_{attribute} := {own}.{attribute}) is not None")
        else:
            conditions.append(f"{own}.{attribute} is None")
    return Held(step.label, kept_at(step), tuple(conditions))
