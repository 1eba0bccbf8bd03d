"""Lets torch compile a model again when one of its modules gets or loses a hook.

By default torch.compile ignores a hook that is registered after it compiled. The setting that changes this is
read after the back end was called. To set it around each call of a model would take 20 us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch._dynamo.callback
import torch._dynamo.config

__all__ = ["with_hook_guards"]

_CONFIG = torch._dynamo.config


def with_hook_guards(backend: Callable[..., Any]) -> Callable[..., Any]:
    """Return a back end whose graphs torch uses only as long as modules have the same hooks.

    Args:
        backend: a back end of torch.compile.
    """

    def fusegen(*args: Any, **kwargs: Any) -> Any:
        if _CONFIG.skip_nnmodule_hook_guards:
            _CONFIG.skip_nnmodule_hook_guards = False
            torch._dynamo.callback.callback_handler.register_end_callback(_skip_again)
        return backend(*args, **kwargs)

    return fusegen


def _skip_again(*_: Any) -> None:
    """Put the setting back when the compilation ends that is under way."""
    _CONFIG.skip_nnmodule_hook_guards = True
    handler = torch._dynamo.callback.callback_handler
    # Not changed in place: torch is going through it.
    handler.end_callbacks = [c for c in handler.end_callbacks if c is not _skip_again]
