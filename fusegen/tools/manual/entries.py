"""The manual's text for each op, family by family, all of it taken from the declarations."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusegen.ops import Op, registry
from fusegen.program import Kind
from fusegen.tools.check.torch_call import untaken
from fusegen.tools.manual.alone import backward_of, program_of
from fusegen.tools.manual.pictures import caption

__all__ = ["Entry", "Family", "families"]

_GROUP = "a group of channels with the dims after them"
_OVER = {
    None: "",
    "inner": "the dims after the channel",
    "channel": "the channel, which is dropped",
}


@dataclass(frozen=True)
class Entry:
    """An op in the manual.

    Args:
        op: the op.
        facts: the rows of its table, by heading, in Markdown.
        programs: its program and the derivative of that, as text.
        caption: what its picture shows, or why there is none.
    """

    op: Op
    facts: Mapping[str, str]
    programs: str
    caption: str


@dataclass(frozen=True)
class Family:
    """The ops of one module.

    Args:
        name: the module's, and the page's.
        about: what the ops have in common.
        entries: the ops.
    """

    name: str
    about: str
    entries: Sequence[Entry]


def families() -> list[Family]:
    """Return the whole vocabulary, in the order of declaration."""
    modules: dict[str, list[Op]] = {}
    for op in registry().values():
        modules.setdefault(op.formula.__module__, []).append(op)
    return [_family(module, ops) for module, ops in modules.items()]


def _family(module: str, ops: Sequence[Op]) -> Family:
    name = module.rsplit(".", 1)[-1]
    about = (sys.modules[module].__doc__ or "").strip()
    return Family(name, about, [_entry(op) for op in ops])


def _entry(op: Op) -> Entry:
    program = program_of(op)
    return Entry(op, _facts(op), f"{program}\n\n{backward_of(program)}", caption(op))


def _facts(op: Op) -> dict[str, str]:
    refused = {name: op.refusal(name) for name in untaken(op)}
    facts = {
        "also called": _code(op.aliases),
        "in torch": f"`torch.{op.torch}`" if op.torch else "",
        "operands": ", ".join(_operand(op, name) for name in op.operands),
        "attributes": ", ".join(_attribute(op, name) for name in op.attributes),
        "reduces": _GROUP if op.groups else _OVER[op.over],
        "submodule of `Module`": f"`torch.{op.submodule.module}`" if op.submodule else _owned(op),
        "in evaluation": "does nothing" if op.eval_mode == "identity" else "",
        "refused": "; ".join(f"`{name}` ({reason})" for name, reason in refused.items()),
    }
    return {heading: text for heading, text in facts.items() if text}


def _operand(op: Op, name: str) -> str:
    kind = op.operands[name]
    notes = [] if kind is None else [kind.label]
    if name == op.classes:
        notes = [Kind.ROW.label, "int64"]
        notes += ["or full: a probability of each class"] if op.by_probabilities else []
    if op.submodule and name in op.submodule.operands:
        notes.append("in the submodule")
    notes += ["may be of bool"] if name in op.conditions else []
    notes += ["no gradient"] if name in op.constant and name != op.classes else []
    notes += ["may be left out"] if name in op.optional else []
    notes += ["without it, the second half of x"] if name in op.parts else []
    return f"`{name}`" + (f" ({', '.join(notes)})" if notes else "")


def _attribute(op: Op, name: str) -> str:
    default = op.attributes[name]
    choices = f" of {_code(op.choices[name])}" if name in op.choices else ""
    if name in op.required:
        words = f"; a number,{choices.removeprefix(' of')}" if choices else ""
        return f"`{name}` (must be given{words})"
    return f"`{name}` = {'none' if default is None else default}{choices}"


def _code(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _owned(op: Op) -> str:
    """Return which module an op has if its spec asks for parameters of its own."""
    return f"`torch.{op.owned.module}` with `{op.owned.flag}: true`" if op.owned else ""
