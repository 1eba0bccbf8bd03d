"""A formula, or a chain as a Python list, as a built function."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from fusegen.base.errors import UserError
from fusegen.base.version import __version__
from fusegen.models.packages import packages_of
from fusegen.models.spec_text import PackageSpec

__all__ = ["fused_chain"]


def fused_chain(
    chain: str | Sequence[Any], folder: Path, order: int, dtypes: Sequence[str]
) -> Callable[..., Any]:
    """Return the `apply` of a chain's package, built now.

    Args:
        chain: a formula, such as "x * tanh(softplus(x))", or steps as in a spec:
            ["gelu", {"softmax": {"dim": -1}}].
        folder: where the package is kept.
        order: how many derivatives it has.
        dtypes: the dtypes that it is compiled for, such as "float32"; all if there are none.

    Raises:
        UserError: if the chain is wrong, or cannot be built.
    """
    if isinstance(chain, str) and chain.endswith((".yaml", ".yml")):
        raise UserError(
            f"{chain} is the name of a spec: fusegen.build({chain!r}) builds it, and "
            f"fusegen.load({Path(chain).stem!r}) imports the package"
        )
    steps = [{"expr": chain}] if isinstance(chain, str) else list(chain)
    data: dict[str, Any] = {"order": order, "chain": steps}
    if dtypes:
        data["dtypes"] = list(dtypes)
    text = yaml.safe_dump(data, sort_keys=False)
    name = f"chain_{hashlib.sha256((__version__ + text).encode()).hexdigest()[:10]}"
    built, refused = packages_of([PackageSpec(name, text)], folder, build=True)
    if name in refused:
        raise UserError(refused[name])
    apply: Callable[..., Any] = built[name].apply
    return apply
