"""Deep copies of models. A function that a model keeps calls the submodules of the copy."""

from __future__ import annotations

import copy
import types
from typing import Any, TypeVar

from torch import nn

__all__ = ["copy_of"]

Model = TypeVar("Model", bound=nn.Module)


def copy_of(model: Model) -> Model:
    """Return a deep copy of a model.

    `copy.deepcopy` shares functions, so that `self.mlp_of = lambda x: mlp.down(mlp.up(x))` would call the
    original's `mlp`.
    """
    copies: dict[int, Any] = {}
    found = copy.deepcopy(model, copies)
    for module in found.modules():
        for name, value in module.__dict__.items():
            if isinstance(value, types.FunctionType) and value.__closure__:
                module.__dict__[name] = _bound_to(copies, value, value.__closure__)
    return found


def _bound_to(
    copies: dict[int, Any], function: types.FunctionType, closure: tuple[types.CellType, ...]
) -> types.FunctionType:
    """Return a function whose closure holds copies of what it held."""
    cells = tuple(_copied(copies, cell) for cell in closure)
    found = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        cells,
    )
    found.__kwdefaults__ = function.__kwdefaults__
    return found


def _copied(copies: dict[int, Any], cell: types.CellType) -> types.CellType:
    try:
        held = cell.cell_contents
    except ValueError:  # its variable has no value yet
        return cell
    return types.CellType(copies[id(held)]) if id(held) in copies else cell
