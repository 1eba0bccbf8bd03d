"""The sections of a spec except the chain, checked by pydantic.

pydantic finds each mistake and its place; `_message` puts it into the words of the spec language.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from fusegen.base.dtypes import DTYPES
from fusegen.base.errors import nearest
from fusegen.program import Kind
from fusegen.spec.model import (
    LAUNCH_PARAMETERS,
    OPERATORS,
    Argument,
    Init,
    Operand,
    Shape,
    Type,
)
from fusegen.spec.names import problem
from fusegen.spec.yaml import Document, Place

__all__ = ["OutputSection", "Sections", "sections"]

_KINDS = {k.label: k for k in (Kind.FULL, Kind.COL, Kind.CHANNEL, Kind.ROW, Kind.SCALAR)}
_MAX_DESCRIPTION = 200
_MAX_DIMS = 8
#: Types that pydantic expects, in the spec's words.
_EXPECTED = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "dict_type": "must be a mapping of names (name: what it is)",
    "model_type": "must be a mapping: {type: float, default: 2.0}, or {kind: col, init: zeros}",
    "list_type": "must be a list, each step on a line that starts with -",
}


def _wrong(message: str) -> PydanticCustomError:
    # The message is given as context, since pydantic formats the template.
    return PydanticCustomError("spec", "{message}", {"message": message})


def _one_of(words: Iterable[str]) -> BeforeValidator:
    valid = tuple(words)

    def check(value: Any) -> Any:
        if value not in valid:
            near = (
                nearest(value, valid)
                if isinstance(value, str)
                else f"; valid here: {', '.join(valid)}"
            )
            raise _wrong(f"cannot be {_shown(value)}{near}")
        return value

    return BeforeValidator(check)


def _shown(value: Any) -> str:
    text = "true" if value is True else "false" if value is False else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_line(value: Any) -> Any:
    """Refuse a description that would break a comment or a docstring."""
    if isinstance(value, str):
        if not value.isprintable() or any(bad in value for bad in ("\\", '"""', "*/")):
            raise _wrong('must be one line of printable text without \\, """ and */')
        if len(value) > _MAX_DESCRIPTION:
            raise _wrong(f"is longer than {_MAX_DESCRIPTION} characters")
    return value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Argument(_Model):
    type: Annotated[Type, _one_of(get_args(Type))]
    default: Any = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class _Operand(_Model):
    kind: Annotated[str, _one_of(_KINDS)]
    dtype: Annotated[str | None, _one_of(("int64", "bool", "float32"))] = None
    init: Annotated[Init | None, _one_of(get_args(Init))] = None
    shape: Any = None
    gradient: bool = True

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class OutputSection(_Model):
    """An entry of `outputs`: the step, and the dtype of its value if that is not x's."""

    name: str
    dtype: Annotated[str | None, _one_of(("float32",))] = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict):
            raise _wrong(f"must be a step, or {{name: step, dtype: float32}}, not {_shown(value)}")
        return value


class Sections(_Model):
    """A spec as pydantic sees it; the chain is read by `fusegen.spec.steps`."""

    chain: list[Any]
    description: Annotated[str, BeforeValidator(_one_line)] = ""
    arguments: dict[str, _Argument] = {}
    operands: dict[str, _Operand] = {}
    dims: int = 0
    order: int = 2
    launch: dict[str, dict[str, int]] = {}
    dtypes: list[Annotated[str, _one_of(DTYPES)]] = list(DTYPES)
    outputs: list[OutputSection] | None = None


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
    if not 1 <= model.order <= 3:
        raise document.error(("order",), "order must be 1, 2 or 3")
    if model.dims and not 2 <= model.dims <= _MAX_DIMS:
        raise document.error(("dims",), f"dims must be a number from 2 to {_MAX_DIMS}")
    if not model.dtypes:
        raise document.error(("dtypes",), f"dtypes is empty; valid here: {', '.join(DTYPES)}")
    _check_launch(model, document)
    arguments = _arguments(model, document)
    return model, arguments, _operands(model, document, arguments)


#: What the entries of a section are.
_SECTIONS: dict[str, type[_Model]] = {"arguments": _Argument, "outputs": OutputSection}


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
            if not 1 <= value <= 1024 or value & (value - 1):
                raise document.error(place, f"{parameter} must be a power of two up to 1024")


def _place(details: ErrorDetails, document: Document) -> Place:
    place: Place = details["loc"]
    while place not in document.lines:
        place = place[:-1]
    return place


def _message(details: ErrorDetails) -> str:
    """Return pydantic's error in the spec's words."""
    *around, last = details["loc"]
    section: type[_Model] = Sections
    if around:
        section = _SECTIONS.get(str(around[0]), _Operand)
    where = f" of {around[-1]!r}" if len(around) > 1 and isinstance(around[-1], str) else ""
    if details["type"] == "extra_forbidden":
        return f"unknown key {last!r}{where}{nearest(str(last), section.model_fields)}"
    if details["type"] == "missing":
        if last == "chain":
            return "the chain is missing: a spec needs `chain:` and the list of its steps"
        return f"the {last}{where} is missing"
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
        arguments.append(Argument(name, given.type, default, document.line(place)))
    return tuple(arguments)


def _default(
    kind: Type, value: Any, model: Sections, document: Document, place: Place
) -> int | float | Shape:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "float" and number:
        return float(value)
    if kind == "int" and number and isinstance(value, int):
        return value
    if kind == "shape" and isinstance(value, list):
        return _shape(value, model, document, place)
    wanted = {"int": "a whole number", "float": "a number", "shape": "a list of sizes"}[kind]
    raise document.error(
        place, f"the default of {place[1]!r} must be {wanted}, not {_shown(value)}"
    )


def _shape(value: list[Any], model: Sections, document: Document, place: Place) -> Shape:
    sizes = [name for name, argument in model.arguments.items() if argument.type == "int"]
    for size in value:
        if isinstance(size, str) and size not in sizes:
            raise document.error(place, f"{size!r} is no int argument{nearest(size, sizes)}")
        if not isinstance(size, str) and (
            isinstance(size, bool) or not isinstance(size, int) or size < 1
        ):
            raise document.error(
                place, f"a size must be 1 or more, or an int argument, not {_shown(size)}"
            )
    return tuple(value)


def _operands(
    model: Sections, document: Document, arguments: tuple[Argument, ...]
) -> tuple[Operand, ...]:
    operands: list[Operand] = []
    for name, given in model.operands.items():
        place = ("operands", name)
        wrong = problem(name, attribute=given.init is not None)
        if wrong is None and name in model.arguments:
            wrong = f"{name!r} is also an argument: choose another name for one of them"
        if wrong:
            raise document.error(place, wrong)
        kind = _KINDS[given.kind]
        shape = None
        integer, mask = given.dtype == "int64", given.dtype == "bool"
        message = ""
        if integer and (kind is not Kind.ROW or given.init):
            message = (
                f"{name!r} of int64 must be an input of kind row: one number a row, without init"
            )
        if mask and given.init:
            message = f"{name!r} of bool must be an input, without init: it gets no gradient"
        float32 = given.dtype == "float32"
        if float32 and kind is Kind.FULL:
            message = (
                f"{name!r} of kind full has x's dtype: only col, channel, row and scalar operands are "
                "of float32 beside an x of 16 bits; leave dtype out"
            )
        if message:
            raise document.error((*place, "dtype"), message)
        if given.init:
            shape = _parameter_shape(model, document, place, arguments)
        elif given.shape is not None:
            message = (
                f"{name!r} has a shape but no init: an input's shape is its kind, {kind.shape}"
            )
            raise document.error((*place, "shape"), message)
        if given.init and not given.gradient:
            message = f"{name!r} is a parameter, which has a gradient: drop init, or gradient"
            raise document.error((*place, "gradient"), message)
        line = document.line(place)
        constant = mask or integer or not given.gradient
        marks = (integer, mask, float32, constant)
        operands.append(Operand(name, kind, given.init, shape, line, *marks))
    return tuple(operands)


def _parameter_shape(
    model: Sections, document: Document, place: Place, arguments: tuple[Argument, ...]
) -> str | Shape:
    """Return the shape of the parameter at a place; the default depends on its kind."""
    name = str(place[1])
    given = model.operands[name]
    kind = _KINDS[given.kind]
    if kind not in (Kind.COL, Kind.CHANNEL, Kind.SCALAR):
        message = (
            f"{name!r} cannot be a parameter that broadcasts: it is {kind.label} {kind.shape}, and "
            "the rows are not known at construction; use kind col, channel or scalar, or drop init"
        )
        raise document.error((*place, "init"), message)
    if given.shape is None:
        if kind is Kind.SCALAR:
            return (1,)
        if kind is Kind.CHANNEL:
            message = f"{name!r} needs a shape: give `shape: [out_channels, 1, 1]`"
            raise document.error(place, message)
        if "out_features" not in model.arguments or model.arguments["out_features"].type != "int":
            message = (
                f"{name!r} needs a shape: give `shape:`, or declare the int argument out_features"
            )
            raise document.error(place, message)
        return ("out_features",)
    here = (*place, "shape")
    if isinstance(given.shape, list):
        shape = _shape(given.shape, model, document, here)
        _check_broadcast(kind, shape, document, here)
        return shape
    shapes = {argument.name: argument for argument in arguments if argument.type == "shape"}
    if not isinstance(given.shape, str) or given.shape not in shapes:
        near = nearest(given.shape, shapes) if isinstance(given.shape, str) else ""
        message = f"the shape of {name!r} must be a list of sizes or a shape argument"
        raise document.error(here, f"{message}, not {_shown(given.shape)}{near}")
    default = shapes[given.shape].default
    if default is not None:
        _check_broadcast(kind, cast(Shape, default), document, here)
    return given.shape


def _check_broadcast(kind: Kind, shape: Shape, document: Document, place: Place) -> None:
    """Refuse a shape that does not fit the kind: [cols] or [1, cols], [C, 1, 1], one number."""
    leading, last = shape[:-1], shape[-1:]
    if kind is Kind.CHANNEL:
        wrong = sum(size != 1 for size in shape) > 1
    else:
        wrong = any(size != 1 for size in leading) or (
            kind is Kind.SCALAR and any(isinstance(s, int) and s != 1 for s in last)
        )
    if wrong:
        listed = ", ".join(map(str, shape))
        message = (
            f"{place[1]!r} cannot broadcast: [{listed}] is not of kind {kind.label} {kind.shape}"
        )
        raise document.error(place, message)
    if kind is Kind.COL and not shape:
        raise document.error(
            place, f"{place[1]!r} cannot broadcast: [] is not of kind col [cols]; use kind scalar"
        )
