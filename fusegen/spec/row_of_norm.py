"""The row of a norm whose parameters torch's module holds: its last dims, with a size for each."""

from __future__ import annotations

from fusegen.ops import Op
from fusegen.spec.bind import Bound
from fusegen.spec.dims import DimError, dims_in_order
from fusegen.spec.model import Ref
from fusegen.spec.scope import Names
from fusegen.spec.yaml import Place

__all__ = ["row_of_norm"]


def row_of_norm(names: Names, place: Place, op: Op, bound: Bound, *, named: bool) -> None:
    """Check the dims of such a norm's row. If the step names none, they are as many as its sizes.

    Args:
        names: the spec's names.
        place: the step's place in the spec.
        op: its op.
        bound: what the step gives; its `dim` may be set.
        named: whether the step names its dims.

    Raises:
        SpecError: they are not the last ones, or there are more or fewer of them than sizes.
    """
    if op.submodule is None or not op.submodule.row_shape:
        return
    features, dim = bound.settings["features"], bound.attributes["dim"]
    given = dim if isinstance(dim, tuple) else (_from_end(dim, names.dims),)
    count = len(features) if isinstance(features, tuple) else 1
    if isinstance(features, Ref) and names.arguments[features.name].type == "shape":
        count = len(given)
    elif not named and count > 1:
        try:
            bound.attributes["dim"] = given = dims_in_order("dim", range(-count, 0), names.dims)
        except DimError as error:
            raise names.document.error((*place, "features"), str(error)) from None
    module = f"torch.{op.submodule.module}"
    if given != (*range(-len(given), 0),):
        message = (
            f"{module} has parameters for the last dim: for others give weight an operand with init"
        )
        raise names.document.error((*place, "dim"), message)
    if count != len(given):
        message = f"{module} takes a size for each dim: features has {count}, and dim {len(given)}"
        raise names.document.error((*place, "dim"), message)


def _from_end(dim: object, dims: int) -> int:
    """Return a dim counted from the end."""
    assert isinstance(dim, int)
    return dim % dims - dims if dims >= 2 else -1
