"""Keys of steps that several modules know."""

from __future__ import annotations

__all__ = ["OF"]

#: The value that a source starts from, if that is not the one before it, or what a formula takes parts of.
OF = "of"

#: The size of the part that has what the others leave.
REST = -1
