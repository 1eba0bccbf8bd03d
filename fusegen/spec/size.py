"""A size that a step's submodule takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from fusegen.base.errors import nearest
from fusegen.ops import Op
from fusegen.spec.computed_size import ComputedSize, computed_size
from fusegen.spec.model import Ref, Setting
from fusegen.spec.scope import Reading

__all__ = ["arguments_in", "has_one_per_dim", "read_size"]

#: Sizes that may be a list with a number per dim.
PER_DIM = ("kernel_size", "output_size")
#: The size of a norm's row.
ROW = "features"
#: A size that is several times an int argument: `2 * hidden`.
_PRODUCT = re.compile(r"(\d{1,9}) ?\* ?(\w+)|(\w+) ?\* ?(\d{1,9})")


def read_size(
    step: Reading, name: str, values: Mapping[str, Any], default: int | None = None
) -> Ref | ComputedSize | int | tuple[int | str, ...]:
    """Return a size of a submodule: a number, an int argument, what is computed from these, or the int
    argument of the same name.

    A size with a default may also be 0, a list with a size for each dim, or a shape argument. So may the
    sizes of a source's kernel, and those of a norm's row.

    Raises:
        SpecError: if it is none of these, or not given and there is no argument of that name.
    """
    value = values.get(name, name)
    counts = step.op.submodule.channels if step.op.submodule else ""
    per_dim = name != counts and (default is not None or has_one_per_dim(step.op, name))
    if _is_size(value, 1 if default is None or name == counts else 0):
        return value
    ints = step.names.of_type("int")
    least = 1 if name == ROW else 0
    listed = value if per_dim and isinstance(value, list) else []
    if listed and all(_is_size(v, least) or (isinstance(v, str) and v in ints) for v in listed):
        return tuple(listed)
    ints += step.names.of_type("shape") if per_dim else []
    if isinstance(value, str) and value in ints:
        return Ref(value, is_argument=True)
    if isinstance(value, str) and (product := _PRODUCT.fullmatch(value)):
        times, argument = int(product[1] or product[4]), product[2] or product[3]
        if argument in step.names.of_type("int") and times:
            return Ref(argument, is_argument=True, times=times)
    if isinstance(value, str) and name in values:
        computed = computed_size(value, step.names.of_type("int"))
        if computed is not None:
            return computed
    if name not in values:
        message = f"{step.word} needs {name!r}: declare `{name}: int` under `arguments:`"
        raise step.error(name, message)
    near = nearest(value[:64], ints) if isinstance(value, str) else ""
    wanted = "an int argument, a size, or sums and products of these"
    if per_dim:
        wanted = "a size, an int argument, sums and products of these, a shape argument, or a list of sizes"
    raise step.unfit(name, wanted, value, near)


def has_one_per_dim(op: Op, name: str) -> bool:
    """Return whether a size of an op's submodule may be a list with one for each dim."""
    of_row = name == ROW and op.submodule is not None and bool(op.submodule.row_shape)
    return of_row or name in PER_DIM


def arguments_in(size: Setting) -> tuple[str, ...]:
    """Return the arguments that a size names."""
    if isinstance(size, Ref):
        return (size.name,)
    if isinstance(size, ComputedSize):
        return size.names
    return tuple(s for s in size if isinstance(s, str)) if isinstance(size, tuple) else ()


def _is_size(value: Any, least: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
