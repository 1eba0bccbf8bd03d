"""What a call of a model may change, and how it is put back: buffers, attributes, tensors of all kinds."""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

__all__ = ["ModuleState", "TensorState"]

#: Attributes that every module has, such as its submodules and hooks; no call changes them.
_OF_EVERY_MODULE = frozenset(nn.Module().__dict__)
#: What holds other values, and can be given those that it had.
_CONTAINERS = (list, dict, set, deque)
#: How deep objects are followed whose attributes are objects.
_DEPTH = 3


class ModuleState:
    """The state of a module without its submodules, which can be put back.

    Attributes are put back with what lists, dicts and other containers hold, the attributes of other objects,
    the values of tensors, and the states of generators of random numbers. So is the state of modules that no
    module has as a submodule. A lazy module is what its first call made of it.

    Args:
        module: the module.
        seen: what was seen already, by its `id`.
    """

    def __init__(self, module: nn.Module, seen: set[int] | None = None) -> None:
        self._module, self._undo = module, list[Callable[[], None]]()
        self._lazy = isinstance(module, LazyModuleMixin)
        self._seen = set[int]() if seen is None else seen
        self._seen.add(id(module))
        if self._lazy:
            return
        self._buffers, self._attributes = dict(module._buffers), _attributes_of(module)
        for value in (*self._buffers.values(), *self._attributes.values()):
            self._keep(value)

    def put_back(self) -> None:
        """Give the module the state that it had."""
        if self._lazy:
            return
        module = self._module
        module._buffers.clear()
        module._buffers.update(self._buffers)
        found = _attributes_of(module)
        for name in found.keys() - self._attributes.keys():
            del module.__dict__[name]
        for name, value in self._attributes.items():
            if found.get(name) is not value:
                module.__dict__[name] = value
        with torch.no_grad():
            for undo in self._undo:
                undo()

    def _keep(self, value: Any, depth: int = 0) -> None:
        """Keep what a value holds, if it can change.

        The values of tensors are kept of the module alone: other objects may have many, as an optimizer has.

        Args:
            value: the value.
            depth: how many objects it is an attribute of.
        """
        if value is None or isinstance(value, str | int | float) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, nn.Module):  # a submodule has been seen
            for module in value.modules():
                if module is value or id(module) not in self._seen:
                    self._undo.append(ModuleState(module, self._seen).put_back)
        elif isinstance(value, Tensor):
            if not depth and _is_state(value):
                self._undo.append(_tensor_undone(value))
        elif isinstance(value, (*_CONTAINERS, tuple)):
            if not isinstance(value, tuple):
                self._undo.append(_container_undone(value))
            for held in value.values() if isinstance(value, dict) else value:
                self._keep(held, depth)
        elif undo := _undone(value):
            self._undo.append(undo)
        elif depth < _DEPTH and _has_state(value):
            self._undo.append(_container_undone(vars(value)))
            for held in list(vars(value).values()):
                self._keep(held, depth + 1)


class TensorState:
    """The tensors that captured graphs change, such as weights; nobody knows them before the graphs do."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor, Callable[[], None]]] = {}

    def keep(self, tensors: Iterable[Any]) -> None:
        """Keep the values of tensors before a graph runs that changes them."""
        for tensor in tensors:
            if isinstance(tensor, Tensor) and id(tensor) not in self._kept:
                self._kept[id(tensor)] = tensor, tensor.data, _tensor_undone(tensor)

    def put_back(self) -> None:
        """Give the tensors the memory and the values that they had."""
        with torch.no_grad():
            for tensor, data, undo in self._kept.values():
                if tensor.data_ptr() != data.data_ptr():  # another tensor was assigned to `data`
                    tensor.data = data
                undo()


def _attributes_of(module: nn.Module) -> dict[str, Any]:
    return {name: v for name, v in module.__dict__.items() if name not in _OF_EVERY_MODULE}


def _is_state(tensor: Tensor) -> bool:
    """Return whether a call may change a tensor, and whether it can be put back."""
    return not (isinstance(tensor, nn.Parameter) or tensor.is_meta or tensor.is_inference())


def _has_state(value: Any) -> bool:
    """Return whether a value is an object with attributes, of a class that is not Python's or torch's own."""
    if not isinstance(getattr(value, "__dict__", None), dict) or isinstance(value, type):
        return False
    owner = type(value).__module__.partition(".")[0]
    return type(value) is types.SimpleNamespace or not (
        owner in sys.stdlib_module_names or owner == "torch"
    )


def _undone(value: Any) -> Callable[[], None] | None:
    """Return what undoes changes of an array or a generator of random numbers; None of another value."""
    if isinstance(value, torch.Generator):
        return functools.partial(_set_state, value, value.get_state())
    if isinstance(value, random.Random):
        numbers = value.getstate()
        return lambda: value.setstate(numbers)
    if isinstance(value, bytearray) or _is_array(value):
        held = value.copy()
        return lambda: value.__setitem__(slice(None), held)
    return None


def _set_state(generator: torch.Generator, state: Tensor) -> None:
    generator.set_state(state)


def _is_array(value: Any) -> bool:
    """Return whether a value is an array of NumPy that can be written to."""
    return type(value).__name__ == "ndarray" and value.ndim > 0 and bool(value.flags.writeable)


def _tensor_undone(tensor: Tensor) -> Callable[[], None]:
    values, live = tensor.detach().clone(), tensor.requires_grad

    def undo() -> None:
        if tensor.requires_grad and not live and not tensor._is_view():
            tensor.detach_()  # what was written to it had a gradient
        if not torch.equal(tensor, values):  # a copy is a change, which a backward pass may refuse
            tensor.copy_(values)

    return undo


def _container_undone(container: Any) -> Callable[[], None]:
    held: Any = container.copy()

    def undo() -> None:
        if _identities(container) == _identities(held):  # torch guards the versions of dicts
            return
        container.clear()
        if isinstance(container, list | deque):
            container.extend(held)
        else:
            container.update(held)

    return undo


def _identities(container: Any) -> list[tuple[int, int]]:
    items = container.items() if isinstance(container, dict) else ((v, v) for v in container)
    return [(id(key), id(value)) for key, value in items]
