"""Graphs that run without gradients, and the specs of their regions: a forward pass alone."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import fx

from fusegen.models.arguments import name_of
from fusegen.models.spec_text import RegionSpec, package_name

__all__ = ["forward_alone", "runs_without_gradients"]


def runs_without_gradients(graph: fx.Graph) -> bool:
    """Return whether a graph that is being compiled is only called where gradients are off.

    torch compiles it anew where they are on.
    """
    switched = any(
        "grad_enabled" in name_of(n) or "inference_mode" in name_of(n) for n in graph.nodes
    )
    return not torch.is_grad_enabled() and not switched


def forward_alone(spec: RegionSpec) -> RegionSpec:
    """Return a region's spec without derivatives, in half the time to compile."""
    text, changed = re.subn(r"\Aorder: \d+\n", "order: 0\n", spec.text)
    assert changed
    return replace(spec, name=package_name([spec.name.rpartition("_")[0]], text), text=text)
