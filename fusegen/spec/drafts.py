"""The steps of a chain before they are bound: each one's word, op and values, and its label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fusegen.ops import Op, find
from fusegen.spec.dotted_names import submodule_problem
from fusegen.spec.keys import OF
from fusegen.spec.model import EXPR, NO_PART
from fusegen.spec.names import problem
from fusegen.spec.op_keys import OpKeys
from fusegen.spec.words import unknown_op
from fusegen.spec.yaml import Document, Place

__all__ = ["Draft", "drafts_of", "labels_of", "settings_of_products", "unnamed_of"]


@dataclass(frozen=True)
class Draft:
    """A step before it has a label: its word in the spec, its op and its values.

    The place ends in the word, also if the step is only a word.
    """

    place: Place
    word: str
    op: Op | None
    given: Any

    @property
    def named(self) -> bool:
        """Whether later steps can use its value: it has a name, or is an attribute of Module."""
        if isinstance(self.given, dict) and "name" in self.given:
            return True
        return self.op is not None and (self.op.source or self.op.submodule is not None)

    @property
    def parts(self) -> list[str]:
        """The names that a formula gives to the parts of its input, once each."""
        given = (
            self.given.get("parts") if self.op is None and isinstance(self.given, dict) else None
        )
        found = dict.fromkeys(given if isinstance(given, list | dict) else ())
        names = [name for name in found if isinstance(name, str) and name != NO_PART]
        free = isinstance(given, dict)
        return [name for name in names if not (free and name.startswith(NO_PART))]

    @property
    def takes_sizes(self) -> bool:
        """Whether it is a formula of parts that have sizes of their own."""
        given = self.given if self.op is None and isinstance(self.given, dict) else {}
        return isinstance(given.get("parts"), dict) and OF not in given

    @property
    def takes_operand(self) -> bool:
        """Whether it is a formula of the parts of something else than x."""
        given = self.given if self.op is None and isinstance(self.given, dict) else {}
        return OF in given

    def without_parts(self) -> Draft:
        """Return it without what it says of parts."""
        left = {k: v for k, v in self.given.items() if k not in ("parts", "dim", OF)}
        return replace(self, given=left)


def drafts_of(document: Document, chain: Sequence[Any]) -> list[Draft]:
    """Return the drafts of a chain's items.

    Raises:
        SpecError: an item names no op, or two take the same input of `Module.forward`.
    """
    drafts = [_draft(document, ("chain", i), item) for i, item in enumerate(chain)]
    _check_inputs(document, drafts)
    return drafts


def _draft(document: Document, place: Place, item: Any) -> Draft:
    word, given = item, None
    if isinstance(item, dict):
        if len(item) != 1:
            keys = ", ".join(item) or "none"
            message = (
                f"a step is one op, not several keys ({keys}); write - op: {{attribute: value}}"
            )
            raise document.error(place, message)
        ((word, given),) = item.items()
    if not isinstance(word, str):
        raise document.error(place, "a step is the name of an op, or op: what it takes")
    place = (*place, word)
    if word == EXPR:
        return Draft(place, word, None, given)
    op = find(word)
    if op is None:
        raise document.error(place, unknown_op(word))
    owned = op.owned
    if owned is not None and isinstance(given, dict) and owned.flag in given:
        if given[owned.flag] is False:
            given = {key: value for key, value in given.items() if key != owned.flag}
        else:
            op = replace(op, submodule=owned)
    return Draft(place, word, op, given)


def settings_of_products(drafts: Sequence[Draft]) -> frozenset[str]:
    """Return the names that products take for their settings: what each is given, or else its own name."""
    found: set[str] = set()
    for draft in drafts:
        if draft.op is None or draft.op.pools:
            continue
        given = draft.given if isinstance(draft.given, dict) else {}
        for key in OpKeys.of(draft.op).geometry:
            found.update(re.findall(r"\w+", str(given.get(key, key))))
    return frozenset(found)


def labels_of(document: Document, drafts: Sequence[Draft], taken: Sequence[str]) -> list[str]:
    """Return each step's label: its `name`, else its op's name, with a number if that is taken.

    A submodule's label is an attribute of the Module, so it is never changed: a clash is an error.
    """
    owners = dict.fromkeys(taken, "an argument or operand")
    for draft in drafts:
        for part in draft.parts:
            if part in owners:
                message = (
                    f"{part!r} is already the name of {owners[part]}: choose another for this part"
                )
                raise document.error((*draft.place, "parts"), message)
            owners[part] = f"a part that {draft.word} takes"
    fixed: dict[int, str] = {}
    for index, draft in enumerate(drafts):
        label = draft.given.get("name") if isinstance(draft.given, dict) else None
        place = draft.place
        if label is not None:
            place = (*place, "name")
            kept = draft.op is not None and draft.op.submodule is not None
            check = submodule_problem if kept else problem
            wrong = check(label) if isinstance(label, str) else "a name must be a word"
            if wrong:
                raise document.error(place, wrong)
            label = label.replace(".", "_")
        elif draft.op is not None and draft.op.submodule is not None:
            label = draft.op.name
        else:
            continue
        if label in owners:
            message = (
                f"{label!r} is already the name of {owners[label]}; give this step another: "
                f"- {draft.word}: {{name: {label}_2}}"
            )
            raise document.error(place, message)
        owners[label] = "another step"
        fixed[index] = label
    labels: list[str] = []
    for index, draft in enumerate(drafts):
        label = fixed.get(index)
        if label is None:
            base = label = draft.op.name if draft.op else EXPR
            count = 1
            while label in owners:
                count += 1
                label = f"{base}_{count}"
            owners[label] = "another step"
        labels.append(label)
    return labels


def unnamed_of(drafts: Sequence[Draft], labels: Sequence[str], count: int) -> dict[str, str]:
    """Return names that a step might mistake for a value, each with what to do instead."""
    found = {
        draft.word: f"to use the value of a step, give it a name: - {draft.word}: {{name: ...}}"
        for draft in drafts[:count]
        if not draft.named and draft.op is not None
    }
    later = [*zip(drafts[count:], labels[count:], strict=True)]
    message = "a step can use the values of those before it, and that one comes after it"
    found |= {part: message for draft, _ in later[1:] for part in draft.parts}
    return found | {label: message for draft, label in later if draft.named}


def _check_inputs(document: Document, drafts: Sequence[Draft]) -> None:
    """Refuse two steps that take an input of `Module.forward` of the same name.

    Raises:
        SpecError: there are such steps.
    """
    taken: dict[str, str] = {}
    for draft in drafts:
        given = draft.given if isinstance(draft.given, dict) else {}
        alone = draft.given is not None and not isinstance(draft.given, dict)
        for name in draft.op.inputs if draft.op is not None and not alone else ():
            if name in given:
                continue
            if name in taken:
                message = (
                    f"{taken[name]} already takes the input {name!r} of Module.forward: give it one"
                )
                raise document.error(draft.place, message)
            taken[name] = draft.word
