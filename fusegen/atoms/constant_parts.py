"""What derivatives take for a constant, as `torch.Tensor.detach` does."""

from __future__ import annotations

import sympy as sp

from fusegen.atoms.declare import Atom, Pointwise, Shape

__all__ = ["detach", "straight_through"]


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


@Atom(
    word="straight_through",
    derivative=(lambda shown, moving: sp.Integer(0), lambda shown, moving: sp.Integer(1)),
    value=lambda shown, moving: shown,
    torch=lambda torch, shown, moving: shown.detach() + (moving - moving.detach()).nan_to_num(),
    cpp="T({0})",
    calls=0,
    fitted=False,
    exact=True,
)
class straight_through(Pointwise):
    """The first argument, with the derivative of the second, which equals it.

    The second is left out of all programs once derivatives are taken (`program/by_value.py`). (Bengio,
    Leonard & Courville 2013, arXiv:1308.3432, name an estimator so. Here it is exact.)
    """

    nargs = 2
