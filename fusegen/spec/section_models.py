"""The sections of a spec except the chain, as pydantic reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from fusegen.base.dtypes import DTYPES, dtype_named
from fusegen.base.errors import nearest
from fusegen.program import Kind
from fusegen.spec.model import Type

__all__ = [
    "KINDS",
    "ArgumentSection",
    "OperandSection",
    "OutputSection",
    "Section",
    "Sections",
    "shown",
]

KINDS = {k.label: k for k in (Kind.FULL, Kind.COL, Kind.CHANNEL, Kind.ROW, Kind.SCALAR)}
_MAX_DESCRIPTION = 200


def _wrong(message: str) -> PydanticCustomError:
    # The message is given as context, since pydantic formats the template.
    return PydanticCustomError("spec", "{message}", {"message": message})


def _one_of(words: Iterable[str]) -> BeforeValidator:
    valid = tuple(words)

    def check(value: Any) -> Any:
        if value not in valid:
            near = f"; valid here: {', '.join(valid)}"
            if isinstance(value, str):
                meant = dtype_named(value)
                near = nearest(meant if meant in valid else value, valid)
            raise _wrong(f"cannot be {shown(value)}{near}")
        return value

    return BeforeValidator(check)


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

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ArgumentSection(Section):
    """An argument of the constructor."""

    type: Annotated[Type, _one_of(get_args(Type))]
    default: Any = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value


class OperandSection(Section):
    """A tensor beside x."""

    kind: Annotated[str, _one_of(KINDS)]
    dtype: Annotated[str | None, _one_of(("int64", "bool", "float32"))] = None
    init: Any = None
    shape: Any = None
    gradient: bool = True

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class OutputSection(Section):
    """An entry of `outputs`: the step, and the dtype of its value if that is not x's."""

    name: str
    dtype: Annotated[str | None, _one_of(("float32",))] = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict):
            raise _wrong(f"must be a step, or {{name: step, dtype: float32}}, not {shown(value)}")
        return value


class Sections(Section):
    """A spec as pydantic sees it; the chain is read by `fusegen.spec.steps`."""

    chain: list[Any]
    description: Annotated[str, BeforeValidator(_one_line)] = ""
    arguments: dict[str, ArgumentSection] = {}
    operands: dict[str, OperandSection] = {}
    dims: int = 0
    order: int = 2
    launch: dict[str, dict[str, int]] = {}
    dtypes: list[Annotated[str, _one_of(DTYPES)]] = list(DTYPES)
    mode: Annotated[str, _one_of(("both", "training"))] = "both"
    outputs: list[OutputSection] | None = None
