"""Chains that are functions of one variable: their values and derivatives in float64."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusegen.chain import Chain
from fusegen.program import Input, Map
from fusegen.tools.check.reference_program import run_program

__all__ = ["numbers_of", "why_not", "with_derivatives"]


def why_not(chain: Chain) -> str:
    """Return why a chain is no function of one variable; empty if it is one."""
    if len(chain.segments) > 1:
        return "the chain has several segments"
    (segment,) = chain.segments
    if segment.moded:
        return "the chain differs in training and in evaluation"
    if chain.spec.outputs or segment.span.paired or chain.layout.halved:
        return "the chain has several inputs or outputs"
    nodes = segment.modes[0].programs[0].nodes()
    inputs = [node for node in nodes if isinstance(node, Input)]
    others = [i.name for i in inputs if i.source == "tensor" and i.name != "x"]
    if others:
        return f"the chain takes {', '.join(others)} too"
    if not all(isinstance(node, Input | Map) for node in nodes):
        return "a value depends on its whole row"
    if any(i.source not in ("tensor", "attribute") for i in inputs):
        return "a value depends on the place of its element"
    return ""


def numbers_of(chain: Chain) -> dict[str, float]:
    """Return the float arguments to show a chain with: their defaults, and 1.5 for those without one."""
    defaults = {a.name: a.default for a in chain.spec.arguments}
    found = {name: defaults[name] for name in chain.attributes}
    return {n: float(v) if isinstance(v, int | float) else 1.5 for n, v in found.items()}


def with_derivatives(chain: Chain, x: Tensor, orders: int | None = None) -> list[Tensor]:
    """Return a chain's value and its derivatives, by the chain's own programs.

    Args:
        chain: a chain of one variable.
        x: the arguments, in float64.
        orders: how many derivatives; by default all that the chain has.
    """
    programs = chain.segments[0].modes[0].programs
    codes = {chain.spec.code(name): value for name, value in numbers_of(chain).items()}
    found = []
    for program in programs if orders is None else programs[: orders + 1]:
        inputs = {i.name: _given(i, x[:, None], codes) for i in program.inputs}
        result = run_program(program, inputs)
        wanted = result.get("y" if program is programs[0] else "grad_x")
        found.append(torch.zeros_like(x) if wanted is None else wanted[:, 0])
    return found


def _given(source: Input, x: Tensor, numbers: Mapping[str, float]) -> Tensor:
    """Return an input of a program, with the cotangents that make `grad_x` the next derivative.

    The cotangent of y is 1, and so is that of each operator's `grad_x`; what comes from others is left out.
    """
    if source.name == "x":
        return x
    if source.name in numbers:
        return torch.tensor([numbers[source.name]], dtype=x.dtype)
    of_others = source.name.startswith("grad_grad_") and "_x" not in source.name
    return torch.zeros_like(x) if of_others else torch.ones_like(x)
