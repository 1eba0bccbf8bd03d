"""Values that a chain returns and computes before it becomes larger: what else decides their sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fusegen.chain import Chain, SegmentOperand
from fusegen.chain.chains import smaller_outputs
from fusegen.program import Kind
from fusegen.render.declared_modes import tuple_text

__all__ = ["as_small_text", "operands_of_smaller"]


def as_small_text(value: str, operands: Sequence[str]) -> str:
    """Return the text of a value without the dims along which it was only repeated, because x was.

    Args:
        value: the text of the value.
        operands: the texts of the operands that give it its size beside x.
    """
    return f"as_small_as({', '.join([value, 'small_', *operands])})"


def operands_of_smaller(chain: Chain, earlier: Collection[str]) -> dict[str, list[str]]:
    """Return the texts of the operands that give a value its size beside x, for each value of a chain that is
    smaller than the chain.

    Args:
        chain: the chain.
        earlier: the values that may be larger than what it starts from.
    """
    known = {operand.name: operand for operand in chain.operands}
    named: dict[str, None] = {}
    found: dict[str, list[str]] = {}
    smaller = smaller_outputs(chain, earlier)
    for step in chain.spec.steps if smaller else ():
        named |= dict.fromkeys(name for name in step.tensors if name in known)
        texts = [_beside_x(chain, known[name]) for name in named]
        found |= {name: [t for t in texts if t] for name in step.names if name in smaller}
    return found


def _beside_x(chain: Chain, operand: SegmentOperand) -> str:
    """Return the text of an operand as torch aligns it with x, `large_`; "" if it cannot be larger."""
    layout, text = chain.layout, operand.name
    if operand.integer or (operand.kind is Kind.SCALAR and operand.dims is None):
        return ""
    if operand.alone:
        return f"along_dims({text}, {tuple_text(operand.alone)}, large_.shape)"
    if operand.channels and layout.rank >= 3:
        return f"{text}.reshape(-1{', 1' * (layout.rank - 2)})"
    if operand.kind is Kind.ROW:
        return f"in_rows(large_, {text}, {tuple_text(layout.columns)})"
    return text
