"""The operands of a spec: what pydantic cannot check of them."""

from __future__ import annotations

from typing import Any, cast, get_args

from fusegen.base.errors import nearest
from fusegen.program import Kind
from fusegen.spec.dotted_names import submodule_problem
from fusegen.spec.model import Argument, Init, Operand, Ref, Shape
from fusegen.spec.names import problem
from fusegen.spec.section_models import FACTOR, KINDS, OperandSection, Sections, shown
from fusegen.spec.yaml import Document, Place

__all__ = ["operands_of", "shape_of"]


def shape_of(value: list[Any], model: Sections, document: Document, place: Place) -> Shape:
    """Return a list of sizes and int arguments.

    Raises:
        SpecError: if an entry is neither.
    """
    sizes = [name for name, argument in model.arguments.items() if argument.type == "int"]
    for size in value:
        if isinstance(size, str) and size not in sizes:
            raise document.error(place, f"{size!r} is no int argument{nearest(size, sizes)}")
        if not isinstance(size, str) and (
            isinstance(size, bool) or not isinstance(size, int) or size < 1
        ):
            raise document.error(
                place, f"a size must be 1 or more, or an int argument, not {shown(size)}"
            )
    return tuple(value)


def operands_of(
    model: Sections, document: Document, arguments: tuple[Argument, ...]
) -> tuple[Operand, ...]:
    """Return the operands of a spec.

    Raises:
        SpecError: if one is not valid.
    """
    operands: list[Operand] = []
    for name, given in model.operands.items():
        place = ("operands", name)
        wrong = problem(name, attribute=given.init is not None)
        if wrong is None and name in model.arguments and given.init != name:
            wrong = f"{name!r} is also an argument: choose another name for one of them"
            if given.init is not None:
                wrong += f"; with `name: {name}` a parameter has it in the state_dict"
        if wrong:
            raise document.error(place, wrong)
        init = None if given.init is None else _init(model, document, place, given.init)
        dims = _dims(name, given, model.dims, document)
        kind = KINDS.get(given.kind or "full", Kind.FULL)
        factor = given.kind == FACTOR
        integer, mask = given.dtype == "int64", given.dtype == "bool"
        message = ""
        if integer and (kind is not Kind.ROW or init is not None):
            message = (
                f"{name!r} of int64 must be an input of kind row: one number a row, without init"
            )
        if mask and init is not None:
            message = f"{name!r} of bool must be an input, without init: it gets no gradient"
        float32 = given.dtype == "float32"
        if float32 and kind is Kind.FULL and (dims is None or len(dims) == model.dims):
            message = (
                f"{name!r} of kind full has x's dtype: only col, channel, row and scalar operands are "
                "of float32 beside an x of 16 bits; leave dtype out"
            )
        if factor and given.dtype is not None:
            message = f"{name!r} of kind factor has x's dtype: leave dtype out"
        if message:
            raise document.error((*place, "dtype"), message)
        shape = _shape(model, document, place, arguments)
        if given.name is not None:
            wrong = submodule_problem(given.name)
            if init is None:
                wrong = f"{name!r} is an input, whose name is {name!r}: drop name, or give init"
            if wrong:
                raise document.error((*place, "name"), wrong)
        if init is not None and not given.gradient:
            message = f"{name!r} is a parameter, which has a gradient: drop init, or gradient"
            raise document.error((*place, "gradient"), message)
        line = document.line(place)
        constant = mask or integer or not given.gradient
        marks = (integer, mask, float32, constant, dims)
        named = (given.name or "", given.unused)
        operands.append(Operand(name, kind, init, shape, line, *marks, factor, *named))
    return tuple(operands)


def _dims(
    name: str, given: OperandSection, rank: int, document: Document
) -> tuple[int, ...] | None:
    """Return the dims along which an operand varies, counted from the end, if it lists them.

    Raises:
        SpecError: it lists none, or says its kind too, or neither.
    """
    place = ("operands", name)
    if given.dims is None:
        if given.kind is None and not given.unused:
            raise document.error(place, f"the kind of {name!r} is missing")
        return None
    here = (*place, "dims")
    if given.kind is not None:
        raise document.error(here, f"{name!r} has both a kind and dims: drop one of them")
    if rank < 3:
        message = f"{name!r} lists dims, so say how many dims x has: `dims: 3` or more"
        raise document.error(here, f"{message}; beside a matrix, use kind row or col")
    wrong = [dim for dim in given.dims if not -rank <= dim < rank]
    if wrong or not given.dims:
        message = f"the dims of {name!r} must be some of 0 to {rank - 1}, not {shown(given.dims)}"
        raise document.error(here, message)
    return tuple(sorted({dim % rank - rank for dim in given.dims}))


def _init(model: Sections, document: Document, place: Place, given: Any) -> Init | float | Ref:
    """Return how a parameter starts: a word, a number, or a float argument.

    Raises:
        SpecError: if it is none of them.
    """
    words: tuple[Init, ...] = get_args(Init)
    floats = [name for name, argument in model.arguments.items() if argument.type == "float"]
    for word in words:
        if given == word:
            return word
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    if isinstance(given, str) and given in floats:
        return Ref(given, is_argument=True)
    near = nearest(given[:64], [*words, *floats]) if isinstance(given, str) else ""
    message = f"the init of {place[1]!r} must be {', '.join(words)}, a number or a float argument"
    raise document.error((*place, "init"), f"{message}, not {shown(given)}{near}")


def _shape(
    model: Sections, document: Document, place: Place, arguments: tuple[Argument, ...]
) -> str | Shape | None:
    """Return the shape of the operand at a place, or None of an input."""
    name = str(place[1])
    given = model.operands[name]
    if given.init is None:
        if given.unused:
            message = f"{name!r} is no parameter that Module could keep: give init, or drop it"
            raise document.error((*place, "unused"), message)
        if given.shape is not None:
            kind = KINDS.get(given.kind or "full", Kind.FULL)
            message = (
                f"{name!r} has a shape but no init: an input's shape is its kind, {kind.shape}"
            )
            raise document.error((*place, "shape"), message)
        return None
    if given.kind != FACTOR and not given.unused:
        return _parameter_shape(model, document, place, arguments)
    if given.shape is None:
        message = f"{name!r} needs a shape: give `shape: [in_features, out_features]`"
        raise document.error(place, message)
    return _given_shape(model, document, place, arguments)


def _parameter_shape(
    model: Sections, document: Document, place: Place, arguments: tuple[Argument, ...]
) -> str | Shape:
    """Return the shape of the parameter at a place; the default depends on its kind."""
    name = str(place[1])
    given = model.operands[name]
    kind = KINDS[given.kind or "full"]
    if given.dims is not None:
        return _shape_along_dims(model, document, place, arguments)
    if kind not in (Kind.COL, Kind.CHANNEL, Kind.SCALAR):
        message = (
            f"{name!r} cannot be a parameter that broadcasts: it is {kind.label} {kind.shape}, and "
            "the rows are not known at construction; use kind col, channel or scalar, list its dims, or "
            "drop init"
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
    shape = _given_shape(model, document, place, arguments)
    sizes = shape
    if isinstance(shape, str):
        sizes = next(cast(Shape, a.default) for a in arguments if a.name == shape)
    if sizes is not None:
        _check_broadcast(kind, cast(Shape, sizes), document, (*place, "shape"))
    return shape


def _shape_along_dims(
    model: Sections, document: Document, place: Place, arguments: tuple[Argument, ...]
) -> str | Shape:
    """Return the shape of a parameter that lists its dims.

    Raises:
        SpecError: it has none, or one that varies along others.
    """
    given = model.operands[str(place[1])]
    assert given.dims is not None
    if given.shape is None:
        listed = ", ".join(f"size_{dim}" for dim in given.dims)
        raise document.error(place, f"{place[1]!r} needs a shape: give `shape: [{listed}]`")
    shape = _given_shape(model, document, place, arguments)
    sizes: object = next((a.default for a in arguments if a.name == shape), shape)
    if isinstance(sizes, tuple) and sum(size != 1 for size in sizes) > len(given.dims):
        listed = ", ".join(map(str, sizes))
        message = f"{place[1]!r} cannot broadcast: [{listed}] varies along others than its dims"
        raise document.error((*place, "shape"), f"{message}, {shown(given.dims)}")
    return shape


def _given_shape(
    model: Sections, document: Document, place: Place, arguments: tuple[Argument, ...]
) -> str | Shape:
    """Return the shape that is given for the parameter at a place."""
    name = str(place[1])
    given = model.operands[name]
    here = (*place, "shape")
    if isinstance(given.shape, list):
        return shape_of(given.shape, model, document, here)
    shapes = {argument.name: argument for argument in arguments if argument.type == "shape"}
    if not isinstance(given.shape, str) or given.shape not in shapes:
        near = nearest(given.shape, shapes) if isinstance(given.shape, str) else ""
        message = f"the shape of {name!r} must be a list of sizes or a shape argument"
        raise document.error(here, f"{message}, not {shown(given.shape)}{near}")
    return given.shape


def _check_broadcast(kind: Kind, shape: Shape, document: Document, place: Place) -> None:
    """Refuse a shape that does not fit the kind: [C, 1, 1], one number, or no dim at all."""
    leading, last = shape[:-1], shape[-1:]
    wrong = False  # how many dims a row has depends on the steps
    if kind is Kind.CHANNEL:
        wrong = sum(size != 1 for size in shape) > 1
    elif kind is Kind.SCALAR:
        wrong = any(size != 1 for size in leading) or any(
            isinstance(s, int) and s != 1 for s in last
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
