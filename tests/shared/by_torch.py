"""A spec as torch computes it, without a build, and all that a call of a model gives."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from fusegen import spec
from fusegen.tools.check.reference import run_chain


def reference(text: str) -> Callable[..., Any]:
    """Return the `apply` of a spec, by torch's own functions."""
    parsed = spec.parse(text, "region")

    @torch._dynamo.disable
    def apply(x: Tensor, *, training: bool = False, **operands: Tensor) -> Any:
        return run_chain(parsed, x, operands, {}, training=training)

    return apply


def packages(specs: Any, folder: Any, *, build: bool) -> Any:
    """Stand in for `fusegen.models.packages.packages_of`: the packages of specs, and why others have none."""
    del folder, build
    return {s.name: SimpleNamespace(apply=reference(s.text)) for s in specs}, {}


def seen(model: Any, inputs: tuple[Tensor, ...], run: Any) -> list[Any]:
    """Return all that a call gives: values, whether they have gradients, these, and what it changed."""
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    given = [t * 1 for t in leaves]  # no leaf, so that it may be changed in place
    outs = [t for t in _pytree.tree_leaves(run(*given)) if isinstance(t, Tensor)]
    live = [o for o in outs if o.requires_grad]
    if live:
        torch.autograd.backward(live, [torch.cos(o.detach()) for o in live])
    state = dict(model.state_dict()) if isinstance(model, nn.Module) else {}
    grads = [t.grad for t in leaves]
    if isinstance(model, nn.Module):
        grads += [p.grad for p in model.parameters()]
    return [*((o.detach(), o.requires_grad) for o in outs), *grads, *given, *state.values()]
