"""A size that a step's submodule takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from fusegen.base.errors import nearest
from fusegen.spec.model import Ref
from fusegen.spec.scope import Reading

__all__ = ["read_size"]

#: Sizes that may be a list with a number per dim.
PER_DIM = ("kernel_size", "output_size")
#: A size that is several times an int argument: `2 * hidden`.
_PRODUCT = re.compile(r"(\d{1,9}) ?\* ?(\w+)|(\w+) ?\* ?(\d{1,9})")


def read_size(
    step: Reading, name: str, values: Mapping[str, Any], default: int | None = None
) -> Ref | int | tuple[int, ...]:
    """Return a size of a submodule: a number, the given int argument, or the int argument of the same name.

    A size with a default may also be 0, a list with a number per dim, or a shape argument. So may the sizes
    of a source's kernel.

    Raises:
        SpecError: if it is none of these, or not given and there is no argument of that name.
    """
    value = values.get(name, name)
    counts = step.op.submodule.channels if step.op.submodule else ""
    per_dim = (default is not None or name in PER_DIM) and name != counts
    if _is_size(value, 1 if default is None or name == counts else 0):
        return value
    if per_dim and isinstance(value, list) and all(_is_size(v, 0) for v in value):
        return tuple(value)
    ints = step.names.of_type("int") + (step.names.of_type("shape") if per_dim else [])
    if isinstance(value, str) and value in ints:
        return Ref(value, is_argument=True)
    if isinstance(value, str) and (product := _PRODUCT.fullmatch(value)):
        times, argument = int(product[1] or product[4]), product[2] or product[3]
        if argument in step.names.of_type("int") and times:
            return Ref(argument, is_argument=True, times=times)
    if name not in values:
        message = f"{step.word} needs {name!r}: declare `{name}: int` under `arguments:`"
        raise step.error(name, message)
    near = nearest(value[:64], ints) if isinstance(value, str) else ""
    wanted = "an int argument, a size, or a number times an argument"
    raise step.unfit(name, wanted, value, near)


def _is_size(value: Any, least: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
