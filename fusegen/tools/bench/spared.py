"""What a backward pass need not move: operands that it does not read, gradients that are other tensors."""

from __future__ import annotations

from fusegen.chain import Chain
from fusegen.program import Input, Kind

__all__ = ["spared_bytes"]


def spared_bytes(chain: Chain, activation_bytes: int) -> int:
    """Return how many bytes a chain's backward pass moves less than each tensor and each gradient once.

    Of a residual sum, the gradients of both summands are one tensor. If the sum is returned, the backward
    reads it instead of the summands. Only chains of one segment count, and tensors of the activation's size.

    Args:
        chain: the chain.
        activation_bytes: the size of its activation.
    """
    if len(chain.segments) > 1 or len(chain.segments[0].modes[0].programs) < 2:
        return 0
    mode = chain.segments[0].modes[0]
    forward, backward = mode.programs[:2]
    saved = backward.named([v.name for v in mode.saved])
    read = {v.tensor for v in backward.nodes(saved) if isinstance(v, Input)}
    large = {
        i.tensor for i in forward.inputs if i.source == "tensor" and i.access.kind == Kind.FULL
    }
    unread = len(large - read) - bool(backward.kept)  # what is kept is read instead
    return (unread + len(backward.shared)) * activation_bytes
