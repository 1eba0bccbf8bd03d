"""Is a built package fast? Tails and whole models against eager, torch.compile and a copy."""

from __future__ import annotations
