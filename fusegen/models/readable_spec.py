"""The names in a spec for people: those of the model, and ops as steps where a formula is one call."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from torch import fx

from fusegen import chain
from fusegen import spec as specs
from fusegen.base.errors import UserError
from fusegen.models import patterns
from fusegen.models.arguments import tensor_of
from fusegen.models.calls import Call
from fusegen.models.effects import Effects
from fusegen.models.model_names import ModelNames, words
from fusegen.models.naming import Naming
from fusegen.models.operands import Held
from fusegen.models.region_spec import spec_of
from fusegen.models.regions import Region
from fusegen.models.spec_text import RegionSpec, Step, yaml_text
from fusegen.ops import Op, find
from fusegen.spec.names import problem

__all__ = ["as_people_write", "readable_spec_of"]

_SIGNS = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
}


def readable_spec_of(
    region: Region, order: int, effects: Effects, names: ModelNames, description: str
) -> RegionSpec:
    """Return a region as a spec for people, with comments that say where its tensors come from.

    Args:
        region: the region.
        order: how many derivatives the spec has.
        effects: what may not be moved in the graph.
        names: the model's names.
        description: what it is, in a line.

    Raises:
        UserError: if no chain can be derived from it.
    """
    spec = _spec_of(region, order, effects, names, as_ops=True)
    try:
        chain.derive(specs.parse(spec.text, spec.name))
    except UserError:  # a step takes less than a formula: a kind of operand, a place
        spec = _spec_of(region, order, effects, names, as_ops=False)
        chain.derive(specs.parse(spec.text, spec.name))
    own = tensor_of(spec.x)
    sizes = region.shape if spec.broadcast or own is None else own.shape
    shape = f"[{', '.join(map(str, sizes))}]"
    to = "broadcast to " if spec.broadcast else ""
    head = [f"# x is {names.source(spec.x)}, {to}{shape}."]
    for name, held in spec.operands.items():
        if held.of_step:
            head.append(f"# {name} is {names.source(held.node)}.")
    tensors = map(tensor_of, (spec.x, *(held.node for held in spec.operands.values())))
    if any(t is not None and t.is_floating_point() and t.dtype is not spec.dtype for t in tensors):
        dtype = str(spec.dtype).removeprefix("torch.")
        head.append(f"# Convert the tensors to {dtype}: in the model they have several dtypes.")
    dropped = [n for n in spec.outputs if not (region.calls[n].keepdim or region.calls[n].ends)]
    if dropped:
        dims = region.calls[dropped[0]].dims
        head.append(
            f"# A result of one value for each row keeps dims {dims}; the model drops them."
        )
    text = "\n".join([*head, f"description: {json.dumps(description)}", spec.text])
    return replace(spec, text=text)


def _spec_of(
    region: Region, order: int, effects: Effects, names: ModelNames, *, as_ops: bool
) -> RegionSpec:
    """Return a region as a spec, with a comment beside each operand."""
    made: list[_ReadableNaming] = []

    def naming() -> _ReadableNaming:
        made.append(_ReadableNaming(names, region, as_ops=as_ops))
        return made[-1]

    spec = spec_of(region, order, effects, naming)
    lines = spec.text.splitlines()
    for place in range(lines.index("chain:")):
        source = made[-1].sources.get(lines[place].strip().partition(":")[0])
        if source and lines[place].startswith("  "):
            lines[place] = f"{lines[place]:<24} # {source}"
    owned = [line for line in lines if line != "mode: training"]  # people evaluate with it, too
    return replace(spec, text="\n".join([*owned, ""]))


class _ReadableNaming(Naming):
    """Chooses the names of a spec from the model.

    Args:
        names: the model's names.
        region: the region. Its inputs have their names before its steps.
        as_ops: whether a formula that is one call of an op is written as that op's step.
    """

    def __init__(self, names: ModelNames, region: Region, *, as_ops: bool) -> None:
        super().__init__()
        self._names, self._as_ops = names, as_ops
        self._inputs = {names.value(node) for node in region.inputs}
        self._taken: set[str] = set()
        #: Where each operand comes from in the model, by its name.
        self.sources: dict[str, str] = {}

    def operand(self, held: Held) -> str:
        """Return the name of a new operand."""
        name = self._new(self._names.value(held.node))
        self.sources[name] = self._names.source(held.node)
        return name

    def step(self, node: fx.Node, call: Call) -> str:
        """Return the name of a new step."""
        return self._new(self._names.step(node, call), self._inputs)

    def part(self, node: fx.Node, place: int) -> str:
        """Return the name of a part that the chain starts from."""
        del place
        return self._new(self._names.value(node), self._inputs)

    def detached(self, label: str) -> str:
        """Return the name of the step that detaches the value of another one."""
        return self._new(f"{label}_detached", self._inputs)

    def tidied(self, steps: Sequence[Step], outputs: Sequence[str]) -> Sequence[Step]:
        """Return the steps without the names that nobody uses."""
        read = {text for step in steps for text in step.given.values()}
        tidied = []
        for step in steps:
            # A name before a parenthesis is a function.
            used = any(re.search(rf"\b{step.label}\b(?!\()", text) for text in read)
            if not used and step.label not in outputs and step.op not in patterns.STEPS:
                step = replace(step, label="")
            tidied.append(_as_op(step) if self._as_ops else as_people_write(step))
        return tidied

    def _new(self, name: str, avoided: Collection[str] = ()) -> str:
        """Return a name that is valid and not taken."""
        name = words(name)[:48].strip("_")
        wanted = name if problem(name, attribute=True) is None else f"{name}_"
        number = 1
        while wanted in self._taken or wanted in avoided:
            number += 1
            wanted = f"{name}_{number}"
        self._taken.add(wanted)
        return wanted


def as_people_write(step: Step) -> Step:
    """Return a step whose formula has no more parentheses than it needs."""
    if step.op != "expr":
        return step
    text = ast.unparse(ast.parse(step.given["formula"].strip('"'), mode="eval"))
    return replace(step, given={**step.given, "formula": f'"{text}"'})


def _as_op(step: Step) -> Step:
    """Return a formula that is one call of an op on the value before it as that op's step."""
    if step.op != "expr":
        return step
    step = as_people_write(step)
    body = ast.parse(step.given["formula"].strip('"'), mode="eval").body
    if isinstance(body, ast.BinOp):
        op = find(_SIGNS.get(type(body.op), ""))
        left, right = body.left, body.right
        if not _is_x(left) and isinstance(body.op, ast.Add | ast.Mult):
            left, right = right, left
        if op is None or not _is_x(left):
            return step
        given = [(next(iter(op.operands)), right)]
    elif isinstance(body, ast.Call) and isinstance(body.func, ast.Name) and len(body.args) == 1:
        op = find(body.func.id) if _is_x(body.args[0]) else None
        given = [(keyword.arg or "", keyword.value) for keyword in body.keywords]
    else:
        return step
    texts = {name: _plain(value) for name, value in given}
    if op is None or op.conditions or op.submodule or None in texts.values():
        return step
    found = {name: text for name, text in texts.items() if text is not None}
    return Step(op.name, found | _dims_of(op, step.given.get("dim", "")), step.label)


def _dims_of(op: Op, dim: str) -> dict[str, str]:
    """Return the attributes that say what an op reduces."""
    if not op.dims or not (dim or not op.takes_shape):
        return {}
    kept = {"keepdim": "true"} if "keepdim" in op.attributes else {}
    return {"dim": dim or "-1", **kept}


def _is_x(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "x"


def _plain(node: ast.expr) -> str | None:
    """Return a name or a number as YAML; None of what is more than that, or x."""
    if isinstance(node, ast.Name):
        return None if node.id == "x" else node.id
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _plain(node.operand)
        return None if inner is None else f"-{inner}"
    if not isinstance(node, ast.Constant):
        return None
    return node.value if isinstance(node.value, str) else yaml_text(node.value)
