"""The text `x=4x128:bfloat16,mask=4x128:bool` -> example inputs."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fusegen.base.dtypes import dtype_named
from fusegen.base.errors import UserError, nearest

__all__ = ["inputs_of"]

_ITEM = re.compile(
    r"(?P<shape>scalar|\d+(?:x\d+)*)(?::(?P<dtype>[a-z]\w*)(?::(?P<range>-?\d+(?:\.\.-?\d+)?))?)?"
)
_FORMS = (
    "an input is a shape, such as 4x128, with a dtype where it is not the model's, 4x128:int64, and for "
    "integers a range, 4x128:int64:1000 (below 1000) or 4x128:int64:-5..5; or a number, True, False or None"
)
_DTYPES = {
    name: getattr(torch, name)
    for name in (
        *("float64", "float32", "bfloat16", "float16", "bool"),
        *("int64", "int32", "int16", "int8", "uint8"),
    )
}
#: Integers are below this if no range is given: both are classes, and indices of any table.
_BELOW = 2


def inputs_of(
    text: str, model: Callable[..., Any], dtype: torch.dtype = torch.float32, seed: int = 0
) -> inspect.BoundArguments:
    """Return example inputs of a model.

    Args:
        text: inputs in the order of the model's parameters or by their names, with a comma between them.
        model: the model, or a function of tensors.
        dtype: the dtype of inputs that name none.
        seed: of the random numbers.

    Raises:
        UserError: if the text says nothing that the model takes.
    """
    generator = torch.Generator().manual_seed(seed)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for item in re.split(r",(?![^(\[]*[)\]])", text):
        name, equals, value = item.strip().rpartition("=")
        if equals and not name.isidentifier():
            raise UserError(f"--inputs: {name!r} is no name of an input; {_FORMS}")
        made = _made(value.strip(), dtype, generator)
        if equals:
            named[name] = made
        elif named:
            raise UserError(f"--inputs: {item.strip()} comes after inputs with a name; name it too")
        else:
            positional.append(made)
    forward = model.forward if isinstance(model, nn.Module) else model
    signature = inspect.signature(forward)
    try:
        return signature.bind(*positional, **named)
    except TypeError as error:
        shown = ", ".join(str(p) for p in signature.parameters.values())
        raise UserError(f"--inputs: {error}; the model takes ({shown})") from error


def _made(text: str, dtype: torch.dtype, generator: torch.Generator) -> Any:
    """Return the input that one item says."""
    match = _ITEM.fullmatch(text)
    if match is None:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            raise UserError(f"--inputs: {text!r} is no input; {_FORMS}") from error
    shape = [] if match["shape"] == "scalar" else [int(n) for n in match["shape"].split("x")]
    if match["dtype"]:
        name = dtype_named(match["dtype"])
        if name not in _DTYPES:
            raise UserError(f"--inputs: {name!r} is no dtype{nearest(name, _DTYPES)}")
        dtype = _DTYPES[name]
    return _random(shape, dtype, match["range"], generator)


def _random(
    shape: list[int], dtype: torch.dtype, bounds: str | None, generator: torch.Generator
) -> Tensor:
    if dtype.is_floating_point:
        if bounds:
            raise UserError(f"--inputs: a range ({bounds}) is for integers, not for {dtype}")
        return torch.randn(shape, generator=generator, dtype=torch.float32).to(dtype)
    low, dots, high = (bounds or str(_BELOW)).rpartition("..")
    first, past = int(low) if dots else 0, int(high)
    if past <= first:
        raise UserError(f"--inputs: the range {bounds} has no number")
    return torch.randint(first, past, shape, generator=generator).to(dtype)
