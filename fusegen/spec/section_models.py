"""The sections of a spec except the chain, as pydantic reads them. An editor shows the text below a key
(`fusegen schema`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fusegen.base.dtypes import DTYPES, dtype_named
from fusegen.base.errors import nearest
from fusegen.program import Kind
from fusegen.spec.model import LAUNCH_PARAMETERS, OPERATORS, Type

__all__ = [
    "FACTOR",
    "KINDS",
    "LAUNCH_VALUES",
    "MAX_DIMS",
    "MAX_ORDER",
    "SIZES",
    "ArgumentSection",
    "OperandSection",
    "OutputSection",
    "Section",
    "Sections",
    "shown",
]

#: The kind of an operand that a product takes, in any shape.
FACTOR = "factor"
KINDS = {k.label: k for k in (Kind.FULL, Kind.COL, Kind.CHANNEL, Kind.ROW, Kind.SCALAR)}
MAX_ORDER = 3
MAX_DIMS = 8
#: What a launch parameter may be.
LAUNCH_VALUES = tuple(2**k for k in range(11))
_MAX_DESCRIPTION = 200
#: In a JSON Schema: the sizes of a shape.
SIZES: JsonSchemaValue = {
    "type": "array",
    "items": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]},
}
_LAUNCH: JsonSchemaValue = {
    "type": "object",
    "propertyNames": {"enum": list(OPERATORS)},
    "additionalProperties": {
        "type": "object",
        "propertyNames": {"enum": list(LAUNCH_PARAMETERS)},
        "additionalProperties": {"enum": list(LAUNCH_VALUES)},
    },
}


def _wrong(message: str) -> PydanticCustomError:
    # The message is given as context, since pydantic formats the template.
    return PydanticCustomError("spec", "{message}", {"message": message})


class _OneOf:
    """One of some words."""

    def __init__(self, words: Iterable[str]) -> None:
        self._valid = tuple(words)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        del schema, handler
        return {"enum": list(self._valid)}

    def _check(self, value: Any) -> Any:
        if value not in self._valid:
            near = f"; valid here: {', '.join(self._valid)}"
            if isinstance(value, str):
                meant = dtype_named(value)
                near = nearest(meant if meant in self._valid else value, self._valid)
            raise _wrong(f"cannot be {shown(value)}{near}")
        return value


def shown(value: Any) -> str:
    """Return a value for a message, as the spec has it and not too long."""
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


class Section(BaseModel):
    """A mapping in a spec; an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    #: The key whose value may be given alone, in place of the mapping.
    short: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {cls.short: value} if cls.short and isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole = handler(schema)
        if not cls.short:
            return whole
        alone = handler.resolve_ref_schema(whole)["properties"][cls.short]
        return {"anyOf": [alone, whole]}


class ArgumentSection(Section):
    """An argument of the constructor."""

    short: ClassVar[str] = "type"

    type: Annotated[Type, _OneOf(get_args(Type))]
    """What it is; a float may be used wherever a number may, a shape is a list of sizes."""
    default: Annotated[Any, WithJsonSchema({"anyOf": [{"type": ["number", "boolean"]}, SIZES]})] = (
        None
    )
    """Its default; arguments without one come first."""
    only: Annotated[Any, WithJsonSchema({"type": ["integer", "boolean"]})] = None
    """Of an int or a bool: the only value that it may have, which steps then take for a number."""


class OperandSection(Section):
    """A tensor beside x."""

    short: ClassVar[str] = "kind"

    kind: Annotated[str | None, _OneOf((*KINDS, FACTOR))] = None
    """full: as x; col, channel, row: one value for each of these; scalar: one value; factor: of a product."""
    dims: list[int] | None = None
    """In place of a kind: the dims of x along which it varies; it has size 1 along the others."""
    dtype: Annotated[str | None, _OneOf(("int64", "bool", "float32"))] = None
    """int64 for classes, bool for masks, float32 beside activations of 16 bits; by default that of x."""
    init: Annotated[Any, WithJsonSchema({"type": ["string", "number"]})] = None
    """Makes it a parameter of Module: zeros, ones, randn, a number, or a float argument."""
    shape: Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, SIZES]})] = None
    """Of a parameter: sizes and int arguments, or a shape argument."""
    name: str | None = None
    """Of a parameter: its name in the state_dict, which may be dotted; by default that of the operand."""
    gradient: bool = True
    """false for an input that gets no gradient, such as a table."""
    unused: bool = False
    """true for a parameter that no step uses, and that is in the original's state_dict."""


class OutputSection(Section):
    """An entry of `outputs`: the step, and the dtype of its value if that is not x's."""

    short: ClassVar[str] = "name"

    name: str
    """The step: its name, or its op."""
    dtype: Annotated[str | None, _OneOf(("float32",))] = None
    """float32 for a value with one number for each row, or one number, as it was computed."""

    @model_validator(mode="before")
    @classmethod
    def _step(cls, value: Any) -> Any:
        if not isinstance(value, str | dict):
            raise _wrong(f"must be a step, or {{name: step, dtype: float32}}, not {shown(value)}")
        return value


class Sections(Section):
    """A spec as pydantic sees it; the chain is read by `fusegen.spec.steps`."""

    chain: list[Any]
    """The operations, in order."""
    description: Annotated[str, BeforeValidator(_one_line)] = ""
    """One line, which the package's documentation begins with."""
    arguments: dict[str, ArgumentSection] = {}
    """Arguments of the Module's constructor, in order."""
    operands: dict[str, OperandSection] = {}
    """Tensors beside x: parameters if they have `init`, else inputs."""
    dims: Annotated[int, Field(json_schema_extra={"minimum": 2, "maximum": MAX_DIMS})] = 0
    """The number of dims of x, if a step needs to know it: 4 for images."""
    order: Annotated[int, Field(json_schema_extra={"minimum": 0, "maximum": MAX_ORDER})] = 2
    """How many derivatives to generate."""
    launch: Annotated[dict[str, dict[str, int]], WithJsonSchema(_LAUNCH)] = {}
    """Launch parameters of the GPU kernels, for each operator."""
    dtypes: list[Annotated[str, _OneOf(DTYPES)]] = list(DTYPES)
    """What kernels are compiled for."""
    mode: Annotated[str, _OneOf(("both", "training"))] = "both"
    """training: compile kernels for training alone."""
    outputs: list[OutputSection] | None = None
    """The steps whose values are returned; by default the last one."""
