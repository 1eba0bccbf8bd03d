"""What a call of a module may change beside its parameters: buffers, and attributes such as a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

__all__ = ["ModuleState"]

#: Attributes that every module has, such as its submodules and hooks; no call changes them.
_OF_EVERY_MODULE = frozenset(nn.Module().__dict__)


class ModuleState:
    """The state of a module without its submodules, which can be put back.

    Attributes are put back with what lists, dicts and sets hold, and the values of tensors. A lazy module is
    what its first call made of it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module, self._undo = module, list[Callable[[], None]]()
        self._lazy = isinstance(module, LazyModuleMixin)
        if self._lazy:
            return
        self._buffers, self._attributes = dict(module._buffers), _attributes_of(module)
        self._seen: set[int] = set()
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

    def _keep(self, value: Any) -> None:
        """Keep what a value holds, if it can change."""
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, Tensor):
            if _is_state(value):
                self._undo.append(_tensor_undone(value))
        elif type(value) in (list, dict, set):
            self._undo.append(_container_undone(value))
        if type(value) in (list, tuple, dict):
            for held in value.values() if isinstance(value, dict) else value:
                self._keep(held)


def _attributes_of(module: nn.Module) -> dict[str, Any]:
    return {name: v for name, v in module.__dict__.items() if name not in _OF_EVERY_MODULE}


def _is_state(tensor: Tensor) -> bool:
    """Return whether a call may change a tensor, and whether it can be put back."""
    return not (isinstance(tensor, nn.Parameter) or tensor.is_meta or tensor.is_inference())


def _tensor_undone(tensor: Tensor) -> Callable[[], None]:
    values = tensor.detach().clone()

    def undo() -> None:
        if not torch.equal(tensor, values):  # a copy is a change, which a backward pass may refuse
            tensor.copy_(values)

    return undo


def _container_undone(container: list[Any] | dict[Any, Any] | set[Any]) -> Callable[[], None]:
    held: Any = container.copy()

    def undo() -> None:
        if isinstance(container, list):
            container[:] = held
        elif _identities(container) != _identities(held):  # torch guards the versions of dicts
            container.clear()
            container.update(held)

    return undo


def _identities(container: dict[Any, Any] | set[Any]) -> list[tuple[int, int]]:
    items = container.items() if isinstance(container, dict) else ((v, v) for v in container)
    return [(id(key), id(value)) for key, value in items]
