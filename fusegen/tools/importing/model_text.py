"""The text `model.py:Class(arguments)` -> a model."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from fusegen.base.errors import UserError, nearest

__all__ = ["model_of"]

_FORMS = "write model.py:Class, model.py:Class(width=64), or package.module:Class"


def model_of(text: str) -> Callable[..., Any]:
    """Return the model that a text names: a model, or a function of tensors.

    Args:
        text: a file or a module, `:`, and a class, a variable, or a function that returns a model. Arguments
            are literals, names in the module, or calls of such names: `model.py:Block(Config(width=64))`.

    Raises:
        UserError: if it names no model, or the model's own code fails.
    """
    place, colon, wanted = text.partition(":")
    if not colon or not place or not wanted:
        raise UserError(f"{text!r} names no model: {_FORMS}")
    module = _module(place)
    try:
        body = ast.parse(wanted.strip(), mode="eval").body
    except SyntaxError as error:
        raise UserError(f"{wanted!r} is no name or call: {_FORMS}") from error
    found = _value(body, module, place)
    if inspect.isclass(found) or (inspect.isfunction(found) and not _required(found)):
        found = _called(found, wanted, (), {}, place)
    if not isinstance(found, nn.Module) and not inspect.isfunction(found):
        raise UserError(
            f"{text} is {type(found).__name__}, not a torch.nn.Module or a function that returns one"
        )
    return found


def _module(place: str) -> Any:
    """Import a file or a module, from the working folder too."""
    path = Path(place)
    if place.endswith(".py") or "/" in place:
        if not path.is_file():
            raise UserError(f"{place}: there is no such file in {Path.cwd()}")
        sys.path.insert(0, str(path.resolve().parent))  # what it imports from beside it
        name = path.stem
        if name in sys.modules:  # a module of another place
            name = f"fusegen_import_{name}"
        made = importlib.util.spec_from_file_location(name, path)
        if made is None or made.loader is None:
            raise UserError(f"{place} is no Python file")
        module = importlib.util.module_from_spec(made)
        sys.modules[name] = module
        loader = made.loader
        _imported(place, lambda: loader.exec_module(module))
        return module
    sys.path.insert(0, str(Path.cwd()))
    return _imported(place, lambda: importlib.import_module(place))


def _imported(place: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # whatever the file's own code raises
        raise UserError(
            f"{place} fails when it is imported: {type(error).__name__}: {error}"
        ) from error


def _value(node: ast.expr, module: Any, place: str) -> Any:
    """Return what a literal, a name or a call stands for; nothing is evaluated as Python."""
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(ast.unparse(node), module, place)
    if isinstance(node, ast.Call):
        if any(isinstance(a, ast.Starred) for a in node.args) or any(
            k.arg is None for k in node.keywords
        ):
            raise UserError(f"{ast.unparse(node)}: give each argument by itself")
        function = _value(node.func, module, place)
        args = [_value(a, module, place) for a in node.args]
        keywords = {str(k.arg): _value(k.value, module, place) for k in node.keywords}
        return _called(function, ast.unparse(node.func), args, keywords, place)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise UserError(
            f"{ast.unparse(node)!r} is no argument here: give a literal, such as 64, True, 'gelu' or [1, 2]"
        ) from error


def _named(name: str, module: Any, place: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            models = [n for n, value in vars(module).items() if _is_model(value, module.__name__)]
            raise UserError(f"{place} has no {name!r}{nearest(name, models)}")
        found = getattr(found, part)
    return found


def _is_model(value: Any, module: str) -> bool:
    """Return whether a name in a module may be a model of it."""
    if inspect.isclass(value):
        return issubclass(value, nn.Module) and value.__module__ == module
    return isinstance(value, nn.Module) or (
        inspect.isfunction(value) and value.__module__ == module
    )


def _required(function: Callable[..., Any]) -> list[str]:
    """Return the parameters that a call must give."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    given = inspect.signature(function).parameters.values()
    return [p.name for p in given if p.default is p.empty and p.kind not in kinds]


def _called(function: Any, name: str, args: Any, keywords: dict[str, Any], place: str) -> Any:
    """Call a class or a function; what goes wrong is one message."""
    if not callable(function):
        raise UserError(f"{name} in {place} is {type(function).__name__}, which takes no arguments")
    try:
        signature = inspect.signature(function)
        signature.bind(*args, **keywords)
    except TypeError as error:
        shown = ", ".join(str(p) for p in signature.parameters.values())
        required = ", ".join(f"{n}=…" for n in _required(function))
        raise UserError(
            f"{name}: {error}. Its arguments are ({shown}); give them: {place}:{name}({required})"
        ) from error
    except ValueError:  # a function of C, which has no signature
        pass
    try:
        return function(*args, **keywords)
    except Exception as error:  # whatever the model's own code raises
        raise UserError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
