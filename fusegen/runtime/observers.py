"""Whether torch's modes, traces, transforms and profilers see what is called."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

__all__ = ["in_plain_eager", "is_transformed", "unseen", "untraced"]

_modes_active = torch._C._len_torch_dispatch_stack
_functions_seen = torch._C._len_torch_function_stack
_profiled = torch._C._autograd._profiler_enabled
_traced = torch._C._get_tracing_state
is_transformed = torch._C._are_functorch_transforms_active


def in_plain_eager() -> bool:
    """Whether no mode, trace, transform or forward derivative is active; a profiler may be."""
    return untraced() and not is_transformed() and forward_ad._current_level < 0


def unseen() -> bool:
    """Whether no mode, profiler or trace of torch is active."""
    return not _profiled() and untraced()


def untraced() -> bool:
    """Whether no mode or trace of torch is active; a profiler may be, which sees operators as they are."""
    if _modes_active() or _traced() is not None:
        return False
    return not _functions_seen() or _defaults_alone()


def _defaults_alone() -> bool:
    """Whether the only active function mode is that of `torch.set_default_device`."""
    from torch.overrides import _get_current_function_mode_stack
    from torch.utils._device import DeviceContext

    return all(type(mode) is DeviceContext for mode in _get_current_function_mode_stack())
