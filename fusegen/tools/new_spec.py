"""A first spec: from the names of its steps, with everything declared that they need."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fusegen.base.errors import UserError
from fusegen.ops import Op, find
from fusegen.spec import parse
from fusegen.spec.op_keys import OpKeys
from fusegen.spec.words import meant_op, unknown_op

__all__ = ["SCHEMA_FILE", "modeline", "new_spec"]

#: The file with the JSON Schema, beside the specs that name it.
SCHEMA_FILE = "fusegen.schema.json"

#: What an operand is, in the comment beside it.
_KINDS = {
    "full": "as large as x",
    "col": "one value for each column; `init: ones` makes it a parameter",
    "channel": "one value for each channel",
    "row": "one value for each row",
    "scalar": "one value",
}


def modeline() -> str:
    """Return the comment by which an editor finds the schema."""
    return f"# yaml-language-server: $schema={SCHEMA_FILE}"


def new_spec(name: str, steps: Sequence[str]) -> str:
    """Return the text of a spec.

    Args:
        name: the package's name.
        steps: names of ops, in order; a formula becomes an `expr`.

    Raises:
        UserError: if a step is none, or they do not make a chain.
    """
    arguments: dict[str, str] = {}
    operands: dict[str, str] = {}
    chain: list[str] = []
    source = False  # whether the chain starts from one
    sources: list[Op] = []
    wide = False  # whether the last source says how wide the activation is
    labels: list[str] = []
    taken = {name for word in steps if (op := find(word)) is not None for name in op.inputs}
    for index, word in enumerate(steps):
        if set(word) & set("()*+/ -"):
            chain.append(f'  - expr: "{word}"')
            continue
        known = word if find(word) else meant_op(word)
        op = find(known or "")
        if op is None:
            raise UserError(unknown_op(word))
        halving = index == 0 or (index == 1 and source)
        later = op.source and bool(sources)
        sized = op.source or not wide
        source = source or op.source
        again = op.submodule is not None and known in labels
        labels.append(str(known))
        given = _given(op, arguments, operands, taken, sized=sized and not later, halving=halving)
        if "keepdim" in op.attributes and index < len(steps) - 1:  # for the steps after it
            given = {"dim": "-1", **given, "keepdim": "true"}
        if op.source and sources:
            given = _sizes(op, arguments, kept=wide) | given
        if op.source:
            sources.append(op)
            wide = wide if op.keeps_channels else _is_wide(op)
        if again:
            given = {"name": f"{known}_{labels.count(str(known))}"} | given
        chain.append(f"  - {known}{_written(given, op)}")
    lines = [
        modeline(),
        "# A chain of operations, which fusegen makes kernels of. `fusegen ops` lists the ops.",
    ]
    if arguments:
        lines.append("arguments:                 # of the constructor of Module")
        lines += [f"  {argument}: {kind}" for argument, kind in arguments.items()]
    if operands:
        lines.append("operands:                  # tensors beside x")
        for operand, kind in operands.items():
            label = kind.removeprefix("{kind: ").split(",")[0]
            lines.append(f"  {operand + ': ' + kind:<24} # {_KINDS[label]}")
    text = "\n".join([*lines, "chain:                     # the steps, in order", *chain, ""])
    parse(text, name)
    return text


def _is_wide(op: Op) -> bool:
    """Return whether a source is given the width of its result."""
    return not {"out_features", "out_channels"}.isdisjoint(OpKeys.of(op).sized)


def _given(
    op: Op,
    arguments: dict[str, str],
    operands: dict[str, str],
    taken: Collection[str],
    *,
    sized: bool,
    halving: bool,
) -> dict[str, str]:
    """Return what an op is given, and declare what it needs.

    Args:
        op: the op.
        arguments: the arguments that are declared, to which this adds.
        operands: the same of operands.
        taken: what no operand may be called.
        sized: whether the op's sizes are not known from a source.
        halving: whether the op may take two halves of one tensor.
    """
    takes = OpKeys.of(op)
    arguments |= dict.fromkeys(takes.sized if sized else (), "int")
    slots = takes.needed(op) + ([] if halving else [*op.parts])
    given = {}
    for slot in slots:
        operand, count = slot, len(operands)
        while operand in operands or operand in taken:
            count += 1
            operand = f"{slot}_{count}"
        kind = op.operands[slot]
        label = kind.label if kind is not None else "full"
        operands[operand] = "{kind: row, dtype: int64}" if slot == op.classes else label
        given[slot] = operand
    for attribute in sorted(op.required):
        given[attribute] = "-1" if attribute in op.dims else _example(op, attribute)
    if op.attributes and not slots and all(value is None for value in op.attributes.values()):
        given.setdefault(next(iter(op.attributes)), "-1" if op.dims else "0")  # clamp
    if op.dims == ("dim",) and (not op.several or op.one_in_torch) and not op.parts:
        given.setdefault("dim", "-1")
    return given


def _sizes(op: Op, arguments: dict[str, str], *, kept: bool) -> dict[str, str]:
    """Return the sizes of a source after another one, each an argument of its own, which this declares.

    Args:
        op: the source.
        arguments: the arguments that are declared, to which this adds.
        kept: whether its input is as wide as the source before it, which need not be said.
    """
    found = {}
    for name in OpKeys.of(op).sized:
        if kept and name in ("in_features", "in_channels"):
            continue
        argument, count = name, 1
        while argument in arguments:
            count += 1
            argument = f"{name}_{count}"
        arguments[argument] = "int"
        if argument != name:
            found[name] = argument
    return found


def _written(given: Mapping[str, str], op: Op) -> str:
    """Return what follows an op's name."""
    if not given:
        return ""
    if [*given] in (OpKeys.of(op).needed(op), [*op.parts]) and len(given) == 1:
        return f": {next(iter(given.values()))}"
    return ": {" + ", ".join(f"{key}: {value}" for key, value in given.items()) + "}"


def _example(op: Op, attribute: str) -> str:
    """Return a value for an attribute that must be given."""
    if attribute in op.choices:
        return op.choices[attribute][0]
    return "1e-6" if attribute == "eps" else "1"
