"""The sections of a spec except the chain, checked by pydantic.

pydantic finds each mistake and its place; `_message` puts it into the words of the spec language.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fusegen.base.dtypes import DTYPES
from fusegen.base.errors import nearest
from fusegen.spec.model import LAUNCH_PARAMETERS, OPERATORS, Argument, Operand, Shape, Type
from fusegen.spec.names import problem
from fusegen.spec.operand_section import operands_of, shape_of
from fusegen.spec.section_models import (
    LAUNCH_VALUES,
    MAX_DIMS,
    MAX_ORDER,
    ArgumentSection,
    OperandSection,
    OutputSection,
    Section,
    Sections,
    shown,
)
from fusegen.spec.yaml import Document, Place

__all__ = ["sections"]

#: Types that pydantic expects, in the spec's words.
_EXPECTED = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "dict_type": "must be a mapping of names (name: what it is)",
    "model_type": "must be a mapping: {type: float, default: 2.0}, or {kind: col, init: zeros}",
    "list_type": "must be a list, each step on a line that starts with -",
}
#: Lists that are no chain, each with an example.
_LISTS = {"dtypes": "[float32, bfloat16]", "outputs": "[first, second]"}
#: What newcomers call a section.
_OTHER_SECTIONS = {
    **dict.fromkeys(("steps", "ops", "layers", "forward", "graph", "formula"), "chain"),
    **dict.fromkeys(("inputs", "params", "parameters", "tensors", "weights"), "operands"),
    **dict.fromkeys(("args", "attributes", "constants", "hyperparameters"), "arguments"),
    **{"dtype": "dtypes", "ndim": "dims", "derivatives": "order", "doc": "description"},
}


def sections(document: Document) -> tuple[Sections, tuple[Argument, ...], tuple[Operand, ...]]:
    """Return the checked sections of a spec, and its arguments and operands.

    Raises:
        SpecError: for the first mistake in the file.
    """
    if document.data is None:
        raise document.error((), "the file is empty: a spec needs a chain")
    if not isinstance(document.data, dict):
        raise document.error(
            (), "a spec is a mapping of sections (chain: ...), not a list or a word"
        )
    try:
        model = Sections.model_validate(document.data)
    except ValidationError as error:
        found = [
            (_place(details, document), details) for details in error.errors(include_url=False)
        ]
        # Missing keys come last: an unknown key is most often a missing one, misspelt.
        found.sort(key=lambda item: (item[1]["type"] == "missing", document.line(item[0])))
        place, details = found[0]
        raise document.error(place, _message(details)) from None
    if not 0 <= model.order <= MAX_ORDER:
        raise document.error(("order",), "order must be 0, 1, 2 or 3")
    if model.dims and not 2 <= model.dims <= MAX_DIMS:
        raise document.error(("dims",), f"dims must be a number from 2 to {MAX_DIMS}")
    if not model.dtypes:
        raise document.error(("dtypes",), f"dtypes is empty; valid here: {', '.join(DTYPES)}")
    _check_launch(model, document)
    arguments = _arguments(model, document)
    return model, arguments, operands_of(model, document, arguments)


#: What the entries of a section are.
_SECTIONS: dict[str, type[Section]] = {"arguments": ArgumentSection, "outputs": OutputSection}


def _check_launch(model: Sections, document: Document) -> None:
    for name, parameters in model.launch.items():
        if name not in OPERATORS:
            raise document.error(
                ("launch", name), f"{name!r} is no operator{nearest(name, OPERATORS)}"
            )
        for parameter, value in parameters.items():
            place = ("launch", name, parameter)
            if parameter not in LAUNCH_PARAMETERS:
                message = (
                    f"{parameter!r} is no launch parameter{nearest(parameter, LAUNCH_PARAMETERS)}"
                )
                raise document.error(place, message)
            if value not in LAUNCH_VALUES:
                raise document.error(place, f"{parameter} must be a power of two up to 1024")


def _place(details: ErrorDetails, document: Document) -> Place:
    place: Place = details["loc"]
    while place not in document.lines:
        place = place[:-1]
    return place


def _message(details: ErrorDetails) -> str:
    """Return pydantic's error in the spec's words."""
    *around, last = details["loc"]
    section: type[Section] = Sections
    if around:
        section = _SECTIONS.get(str(around[0]), OperandSection)
    where = f" of {around[-1]!r}" if len(around) > 1 and isinstance(around[-1], str) else ""
    if details["type"] == "extra_forbidden":
        if not around and last == "name":
            return "unknown key 'name': a package is named after its file"
        meant = None if around else _OTHER_SECTIONS.get(str(last))
        near = f"; did you mean {meant!r}?" if meant else nearest(str(last), section.model_fields)
        return f"unknown key {last!r}{where}{near}"
    if isinstance(last, int):  # an entry of a list
        last, where = around[-1], ""
    if details["type"] == "missing":
        if last == "chain":
            return "the chain is missing: a spec needs `chain:` and the list of its steps"
        return f"the {last}{where} is missing"
    if details["type"] == "list_type" and last in _LISTS:
        return f"{last} must be a list: {_LISTS[str(last)]}"
    message = (
        details["msg"]
        if details["type"] == "spec"
        else _EXPECTED.get(details["type"], "is not valid")
    )
    return f"{last}{where} {message}"


def _arguments(model: Sections, document: Document) -> tuple[Argument, ...]:
    arguments: list[Argument] = []
    for name, given in model.arguments.items():
        place = ("arguments", name)
        wrong = problem(name, attribute=given.type == "float", argument=True)
        if wrong:
            raise document.error(place, wrong)
        default: Any = None
        if "default" in given.model_fields_set:
            here = (*place, "default")
            default = _default(given.type, given.default, model, document, here)
        elif arguments and arguments[-1].default is not None:
            raise document.error(
                place, f"{name!r} has no default but follows one that has: move it up"
            )
        only = None if given.only is None else _only(given, default, document, place)
        arguments.append(Argument(name, given.type, default, document.line(place), only))
    return tuple(arguments)


def _only(given: ArgumentSection, default: Any, document: Document, place: Place) -> int | bool:
    """Return the only value of an argument.

    Raises:
        SpecError: it has another type than the argument, or is not its default.
    """
    only, words = given.only, {"int": "a whole number", "bool": "true or false"}
    message = ""
    if given.type not in words:
        message = f"an argument of type {given.type} may have any value: drop only"
    elif not isinstance(only, int) or isinstance(only, bool) != (given.type == "bool"):
        message = f"the only value of {place[1]!r} must be {words[given.type]}, not {shown(only)}"
    elif default not in (None, given.only):
        message = (
            f"the default of {place[1]!r} is {shown(default)}, and its only value is {shown(only)}"
        )
    if message:
        raise document.error((*place, "only"), message)
    assert isinstance(only, int)
    return only


def _default(
    kind: Type, value: Any, model: Sections, document: Document, place: Place
) -> int | float | Shape:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "float" and number:
        return float(value)
    if kind == "int" and number and isinstance(value, int):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "shape" and isinstance(value, list):
        return shape_of(value, model, document, place)
    wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    message = f"the default of {place[1]!r} must be {wanted.get(kind, 'a list of sizes')}, not {shown(value)}"
    raise document.error(place, message)
