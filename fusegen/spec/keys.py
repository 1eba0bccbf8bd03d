"""Keys of steps, and a size, that several modules know."""

from __future__ import annotations

__all__ = ["OF", "REST"]

#: The value that a source starts from, if that is not the one before it, or what a formula takes parts of.
OF = "of"

#: The size of the part that has what the others leave.
REST = -1
