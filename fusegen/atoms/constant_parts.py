"""What derivatives take for a constant, as `torch.Tensor.detach` does."""

from __future__ import annotations

import sympy as sp

from fusegen.atoms.declare import Atom, Pointwise, Shape

__all__ = ["detach"]


@Atom(
    word="detach",
    derivative=lambda x: sp.Integer(0),
    value=lambda x: x,
    torch=lambda torch, x: x.detach(),
    cpp="T({0})",
    shape=Shape.GROWING,
    calls=0,
    fitted=False,
    exact=True,
)
class detach(Pointwise):
    """x, of which derivatives of every order are 0."""

    nargs = 1
