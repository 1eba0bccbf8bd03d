"""The base class of generated Modules, which refuses some of torch's tracers with a message."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import nn

from fusegen.runtime.memory_format import MemoryFormat


class FusedModule(nn.Module):
    """A generated `Module`.

    Attributes:
        memory_format: in which memory format its convolution runs: "auto" (what `fusegen.set_memory_format`
            says, by default channels-last on a GPU where that pays), "channels_last" or "preserve".
    """

    memory_format: MemoryFormat = "auto"

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse `torch.jit.script`, which calls this method of every module first.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{type(self).__module__}.{type(self).__qualname__}: torch.jit.script cannot compile a "
            "generated Module; use torch.jit.trace, torch.export or torch.compile"
        )


def refuse_proxy(package: str, x: Any) -> None:
    """Refuse a symbolic trace of torch.fx in training: its graph could never leave training.

    Raises:
        TypeError: if `x` is a value of such a trace.
    """
    if isinstance(x, torch.fx.Proxy):
        raise TypeError(
            f"{package}: torch.fx.symbolic_trace of a Module in training would fix it to training; call "
            "eval() before, or make the Module a leaf of the Tracer"
        )
