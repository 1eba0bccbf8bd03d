"""The JSON Schema of specs, for editors: the sections as pydantic reads them, and the ops as declared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from fusegen.atoms.halves import MOST_PARTS
from fusegen.ops import Op, aliases, registry
from fusegen.spec.attribute import type_of
from fusegen.spec.formula.step import KEYS
from fusegen.spec.keys import REST
from fusegen.spec.model import EXPR
from fusegen.spec.op_keys import DTYPE, OpKeys
from fusegen.spec.section_models import Sections
from fusegen.spec.size import has_one_per_dim
from fusegen.spec.steps import MAX_STEPS

__all__ = ["json_schema"]

Json = dict[str, Any]

_NAME: Json = {"type": "string", "description": "The step's label, by which others use its value."}
_DIM: Json = {"type": "integer"}
_DIMS: Json = {"anyOf": [_DIM, {"type": "array", "items": _DIM, "minItems": 1}]}
_FACTOR: Json = {
    "type": "string",
    "description": "An operand of kind factor, or an earlier step; .T transposes it.",
}
#: What a formula's step takes; the keys are those of `fusegen.spec.formula.step`.
_EXPR: Json = {
    "formula": {"type": "string", "description": 'Such as "x * sigmoid(x)".'},
    "dim": {**_DIMS, "description": "What the row functions of the formula reduce over."},
    "parts": {
        "description": "Names of the parts of x, which are of one width, or the size of each.",
        "anyOf": [
            {
                "type": "array",
                "items": {"type": "string"},
                "minItems": 2,
                "maxItems": MOST_PARTS,
            },
            {
                "type": "object",
                "additionalProperties": {"type": ["integer", "string"], "minimum": REST},
                "minProperties": 2,
                "maxProperties": MOST_PARTS,
            },
        ],
    },
    "of": {
        "type": "string",
        "description": "What the parts are of, if not of x: an operand or an earlier step.",
    },
    "alternating": {
        "type": "boolean",
        "description": "Whether the two parts are the even and the odd columns of x.",
    },
    "name": _NAME,
}


def json_schema() -> Json:
    """Return the schema of a spec, as draft 7 of JSON Schema, which editors know."""
    sections = _tidy(Sections.model_json_schema())
    definitions = sections.pop("$defs")
    ops = {f"op_{name}": _values(op) for name, op in registry().items()}
    words = {name: name for name in registry()} | dict(aliases())
    steps = {word: {"$ref": f"#/definitions/op_{name}"} for word, name in words.items()}
    alone = [word for word, name in words.items() if not _required(registry()[name])]
    sections["properties"]["chain"] |= {
        "minItems": 1,
        "maxItems": MAX_STEPS,
        "items": {"$ref": "#/definitions/step"},
    }
    step = {
        "description": "A step: an op, an op with what it takes, or a formula.",
        "anyOf": [
            {"enum": alone},
            _object({EXPR: {"$ref": "#/definitions/expr"}, **steps}, one=True),
        ],
    }
    expr = {
        "description": "An inline formula.",
        "anyOf": [_EXPR["formula"], _object({key: _EXPR[key] for key in KEYS}, ["formula"])],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **sections,
        "title": "A spec of fusegen",
        "description": "A chain of operations that fusegen makes kernels of.",
        "definitions": {**definitions, "step": step, "expr": expr, **ops},
    }


def _values(op: Op) -> Json:
    """Return what may follow an op's name: its keys, or the value of the only one."""
    forms = [op, *([replace(op, submodule=op.owned)] if op.owned is not None else [])]
    properties: Json = {}
    for form in forms:
        properties |= _properties(form)
    targets = OpKeys.of(op).alone(op)
    single = [_without_lists(properties[targets[0]])] if len(targets) == 1 else []
    source = f" It is torch.{op.torch}." if op.torch else ""
    return {
        "description": f"{op.statement}.{source}",
        "anyOf": [*single, _object(properties, _required(op))],
    }


def _required(op: Op) -> list[str]:
    return [*OpKeys.of(op).needed(op), *sorted(op.required)]


def _properties(op: Op) -> Json:
    takes = OpKeys.of(op)
    found: Json = {name: _operand(op, name) for name in takes.slots}
    found |= {name: _attribute(op, name) for name in op.attributes}
    channels = op.submodule.channels if op.submodule else ""
    for name in (*takes.sized, *takes.geometry):
        per_dim = name != channels and (name in takes.geometry or has_one_per_dim(op, name))
        found[name] = _size(0 if name in takes.geometry and name != channels else 1, per_dim)
    found |= dict.fromkeys(takes.factors, _FACTOR)
    for name, usual in takes.flags.items():
        found[name] = {"type": ["boolean", "string"], "default": usual}
    if takes.dtype:
        found[DTYPE] = {"enum": ["float32"], "description": "Of the parameters, beside 16 bits."}
    return found | {"name": _NAME}


def _operand(op: Op, name: str) -> Json:
    kind = op.operands[name]
    text = "A tensor" if kind is None else f"A tensor of kind {kind.label}"
    names = "operand, an earlier step or a float argument"
    if name == op.classes:
        return {"type": "string", "description": "The classes of the rows: the name of an operand."}
    return {"type": ["string", "number"], "description": f"{text} or a number: an {names}."}


def _attribute(op: Op, name: str) -> Json:
    default, kind = op.attributes[name], type_of(op, name)
    found: Json
    if kind == "float":
        found = {"anyOf": [{"type": "number", **_bounds(op, name)}, {"type": "string"}]}
    elif kind == "str":
        found = {"enum": list(op.choices[name])}
    elif kind == "bool":
        found = {"type": "boolean"}
    elif name == op.groups:
        found = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]}
    else:
        found = dict(_DIMS if name in op.dims and op.several else _DIM)
    if default is None:
        if name not in op.required:
            found = {"anyOf": [found, {"type": "null"}]}
        return found
    return {**found, "default": default}


def _bounds(op: Op, name: str) -> Json:
    bounds = op.ranges.get(name)
    if bounds is None:
        return {}
    most = {"maximum": bounds.most} if bounds.most < math.inf else {}
    return {"exclusiveMinimum" if bounds.above else "minimum": bounds.least, **most}


def _size(least: int, per_dim: bool) -> Json:
    alone = [{"type": "integer", "minimum": least}, {"type": "string"}]
    item = {"type": ["integer", "string"], "minimum": 0}
    lists = [{"type": "array", "items": item}] if per_dim else []
    return {"anyOf": [*alone, *lists], "description": "A size, or an int argument, or several."}


def _object(properties: Json, required: Iterable[str] = (), *, one: bool = False) -> Json:
    found: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    if one:
        return {**found, "minProperties": 1, "maxProperties": 1}
    names = list(required)
    return {**found, "required": names} if names else found


def _without_lists(schema: Json) -> Json:
    """Return what a value of a schema may be, but for a list: these need their key."""
    if "anyOf" not in schema:
        return schema
    kept = [each for each in schema["anyOf"] if each.get("type") != "array"]
    return {**schema, "anyOf": kept}


def _tidy(value: Any) -> Any:
    """Return pydantic's schema without titles and defaults of null, and with draft 7's definitions."""
    if isinstance(value, list):
        return [_tidy(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {}
    for key, each in value.items():
        if (key == "title" and isinstance(each, str)) or (key == "default" and each is None):
            continue
        if key == "$ref":
            each = each.replace("#/$defs/", "#/definitions/")
        found[key] = _tidy(each)
    return found
