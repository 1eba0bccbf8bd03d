"""A graph that runs as eager until its packages are built, and fused from its next call on."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import checkpoint

from fusegen.models.background import Build

__all__ = ["Switching"]

Graph = Callable[..., Any]


class Switching:
    """The function of a graph whose packages are built in the background.

    A backward pass belongs to the forward pass that it is of, whichever it was. A checkpoint that computes a
    forward pass again computes it as before: torch compares what both save.

    Args:
        eager: the graph as torch computes it.
        build: the build of its packages.
        fused: makes the graph with its regions fused, when the build has ended.
    """

    def __init__(self, eager: Graph, build: Build, fused: Callable[[Build], Graph]) -> None:
        self._graph, self._build = eager, build
        self._make: Callable[[Build], Graph] | None = fused
        self._switching = threading.Lock()
        #: What each checkpoint ran.
        self._ran: weakref.WeakKeyDictionary[Any, Graph] = weakref.WeakKeyDictionary()

    def call(self, *args: Any) -> Any:
        """Compute the graph."""
        if self._make is not None and self._build.ended.is_set():
            self._switch()
        if self._make is None and not self._ran:
            return self._graph(*args)
        frame = _checkpoint()
        if frame is None:
            return self._graph(*args)
        return self._ran.setdefault(frame, self._graph)(*args)

    def _switch(self) -> None:
        with self._switching:  # threads may call a model side by side
            make, self._make = self._make, None
            if make is not None:
                self._graph = make(self._build)


def _checkpoint() -> Any:
    """Return what stands for the checkpoint that this call is in: the same object when it is repeated.

    torch has no function for that. The hooks of the innermost checkpoint hold it.
    """
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    pack = inspect.unwrap(hooks[0]) if hooks else None
    if not inspect.isfunction(pack):
        return None
    held = inspect.getclosurevars(pack).nonlocals
    if "target_frame_ref" in held:  # the forward pass is repeated
        return held["target_frame_ref"]()
    frame = held.get("frame")
    return frame if isinstance(frame, checkpoint._CheckpointFrame) else None
