"""How wide the activation is where a step begins, as far as the chain's source says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fusegen.spec.computed_size import ComputedSize
from fusegen.spec.model import Ref, Setting, Step

__all__ = ["sizes_after"]

#: What sources call the width of their products.
_WIDTHS = ("out_features", "out_channels")


def sizes_after(before: Sequence[Step]) -> Mapping[str, Setting]:
    """Return the sizes that the chain's source determines, if it has one."""
    for place, source in reversed([*enumerate(before)]):
        if not source.is_source:
            continue
        width = next((k for k in _WIDTHS if k in source.settings), None)
        if width is not None:
            features: Setting | None = source.settings[width]
            for step in before[place:]:
                if step.splits_channels:
                    features = _part(features, 1 + len(step.split))
            return (
                source.settings if features is None else {**source.settings, "features": features}
            )
        of_rows = source.op is not None and source.op.matrix and source.dims == 2
        if source.op is None or not source.op.keeps_channels or of_rows:
            return source.settings
    return {}


def _part(size: Setting | None, count: int) -> Setting | None:
    """Return one of so many parts of a width, or None if it may not be an integer."""
    if isinstance(size, ComputedSize):
        return size.part(count)
    if isinstance(size, Ref):
        return replace(size, times=size.times // count) if size.times % count == 0 else None
    return size // count if isinstance(size, int) and size % count == 0 else None
