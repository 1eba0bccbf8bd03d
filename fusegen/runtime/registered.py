"""What this process has registered with torch, which knows each operator only once.

Several copies of the runtime can be in one process: fusegen's own, and one in each wheel that `fusegen
package` wrote. Two of them may have the same package, so they share this record. It lies in `torch.ops`,
which they share too. A namespace is a hash that contains fusegen's version, so copies that share a namespace
have the same version. The two names in `torch.ops` must never change.
"""

from __future__ import annotations

import threading

import torch

_shared = vars(torch.ops)

#: Held while a package is imported.
LOADING: threading.RLock = _shared.setdefault("_fusegen_loading", threading.RLock())

_by_namespace: dict[str, set[str]] = _shared.setdefault("_fusegen_registered", {})


def registered(namespace: str) -> set[str]:
    """Return what has been registered in a namespace, for the caller to add to.

    It has the names of libraries whose operators torch knows, and the names of operators whose fake kernel
    and autograd it knows.
    """
    return _by_namespace.setdefault(namespace, set())
