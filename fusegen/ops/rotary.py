"""Rotary position embedding: pairs of elements of a row are turned by an angle.

A pair has one element from each half of the row, as in Llama, GPT-NeoX and Qwen, or, `interleaved`, two
neighbours, 2i and 2i + 1, as in GPT-J, the first LLaMA, GLM and Flux; flash-attn's `interleaved` means the
same. With `partial_rotary_factor`, `rotary_dim / D`, only so much of the row is turned, from its first column
on, and the rest stays as it is, as in GPT-NeoX, Phi and GLM. The rest must be a multiple of half of what is
turned: factors are 1, 0.5, 0.4, 0.25 and the like, 2 / n with n up to 16, and the size of the last dim is a
multiple of n, or even if all is turned. The angle's cosine and sine are tensors as wide as what is turned, as
in transformers, or, `per_pair`, with one number for each pair, as in flash-attn and vLLM; they are broadcast
over the row's batch and heads. `rope` gives them no gradient; the formula `x * cos + rotate_half(x) * sin`
does.
"""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import first_half, halves, second_half
from fusegen.atoms.halves import MOST_PARTS, first_columns, joined, other_columns
from fusegen.ops.declare import RefusedError, op


@op(paired=True)
def rotate_half(x: sp.Expr, *, interleaved: bool = False) -> sp.Expr:
    """(-x2, x1), where x1 and x2 are the halves of a row, or alternate. Su et al. 2021, arXiv:2104.09864."""
    turned = second_half(x, alternating=interleaved)
    return halves(-turned, first_half(x, alternating=interleaved), alternating=interleaved)


@op(paired=True, constant=("cos", "sin"))
def rope(
    x: sp.Expr,
    cos: sp.Expr,
    sin: sp.Expr,
    *,
    interleaved: bool = False,
    partial_rotary_factor: float = 1.0,
    per_pair: bool = False,
) -> sp.Expr:
    """x cos + (-x2, x1) sin, where (-x2, x1) is `rotate_half` of x. Su et al. 2021, arXiv:2104.09864."""
    count = _parts(partial_rotary_factor)
    if per_pair:
        cos, sin = (halves(table, table, alternating=interleaved) for table in (cos, sin))
    first = first_columns(x, count)
    turned = first * cos + rotate_half.formula(first, interleaved=interleaved) * sin
    return joined(turned, other_columns(x, count)) if count > 2 else turned


def _parts(factor: sp.Expr | float) -> int:
    """Return how many parts a row has if the first two of them are turned.

    Raises:
        RefusedError: the rest is no whole number of such parts, or their number is not known.
    """
    known = not getattr(factor, "free_symbols", ())
    count = round(2 / float(factor)) if known and 0 < factor <= 1 else 0
    if not 2 <= count <= MOST_PARTS or abs(2 / float(factor) - count) > 1e-9 * count:
        raise RefusedError(
            "cuts a row into parts as wide as half of what it turns: 2 / partial_rotary_factor must be a "
            f"whole number from 2 to {MOST_PARTS}, as it is for 1, 0.5, 0.4 and 0.25"
        )
    return count
