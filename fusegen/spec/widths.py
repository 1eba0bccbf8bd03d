"""How wide the activation is where a step begins, as far as the chain's source says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fusegen.spec.model import Ref, Setting, Step

__all__ = ["sizes_after"]


def sizes_after(before: Sequence[Step]) -> Mapping[str, Setting]:
    """Return the sizes that the chain's source determines, if it has one."""
    source = next((step for step in before if step.op is not None and step.op.source), None)
    if source is None:
        return {}
    width = next((k for k in ("out_features", "out_channels") if k in source.settings), None)
    if width is None:
        return source.settings
    features: Setting | None = source.settings[width]
    if any(step.halves_channels for step in before):
        features = _half(features)
    return source.settings if features is None else {**source.settings, "features": features}


def _half(size: Setting | None) -> Setting | None:
    """Return half a width, or None if it may not be an integer."""
    if isinstance(size, Ref):
        return replace(size, times=size.times // 2) if size.times % 2 == 0 else None
    return size // 2 if isinstance(size, int) and size % 2 == 0 else None
