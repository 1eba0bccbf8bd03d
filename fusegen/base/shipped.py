"""Whether this copy of the runtime came in a wheel that `fusegen package` wrote."""

from __future__ import annotations

#: The distribution that this copy is part of. In fusegen itself it is None; `fusegen package` writes the name
#: into the copy.
DISTRIBUTION: str | None = None
