"""Why a node that does more than compute a value is left where it is, for the report."""

from __future__ import annotations

import operator

from torch import fx

from fusegen.models.effects import Effects, changes, switches

__all__ = ["reason_by_kind", "reason_by_order"]


def reason_by_kind(node: fx.Node) -> str:
    """Return why a node is no op by what it is, whatever its value; empty if that says nothing."""
    if switches(node):
        return "it switches a mode, as torch.no_grad does, and nothing is fused across that"
    if node.target in (operator.setitem, "__setitem__"):
        return "it changes a part of a tensor; torch.where makes a new one, and can be fused"
    if node.kwargs.get("out") is not None:
        return "it writes to out=; without that it can be fused"
    return ""


def reason_by_order(node: fx.Node, effects: Effects) -> str:
    """Return why a node of an op may not be moved; empty if it may."""
    if effects.may_move(node):
        return ""
    if changes(node):
        return "it changes a tensor in place; what makes a new one can be fused, as x = x * 2"
    return "a tensor that it reads or gives is changed in place"
