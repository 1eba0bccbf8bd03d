"""Compiles a model through a back end of torch.compile."""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["compiled"]

_COUNT = itertools.count()


def compiled(model: nn.Module, backend: Any, *, with_recurrent: bool = True) -> Callable[..., Any]:
    """Return what calls a model through a back end of torch.compile.

    Args:
        model: the model.
        backend: the back end.
        with_recurrent: capture nn.LSTM, nn.GRU and nn.RNN as single ops. By default torch captures nothing of
            a function that calls one. Inductor would unroll them.
    """
    function: Callable[..., Any] = torch.compile(_entry(model), backend=backend)
    if not with_recurrent or not any(isinstance(m, nn.RNNBase) for m in model.modules()):
        return function

    def call(*args: Any, **kwargs: Any) -> Any:
        if (
            torch.compiler.is_compiling()
        ):  # by another torch.compile, which has a setting of its own
            return function(*args, **kwargs)
        with torch._dynamo.config.patch(allow_rnn=True):
            return function(*args, **kwargs)

    return call


def _entry(model: nn.Module) -> Callable[..., Any]:
    """Return a function that calls a model, with code of its own.

    torch compiles no code of `torch.nn` by itself, such as that of a Sequential. And it compiles the same
    code at most eight times, which several fused models would share.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return model._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call] # torch says no types

    code = call.__code__.replace(co_name=f"fused_model_{next(_COUNT)}")
    return types.FunctionType(code, call.__globals__, code.co_name, None, call.__closure__)
